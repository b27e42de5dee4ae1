"""gym-pusht's environment; importing this module does not load it."""

import os
import warnings
from typing import Any

import gymnasium

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.tasks import control
from jaxdiff.tasks.pusht.world import ENVIRONMENT

_PUSHT = Environment(ENVIRONMENT)


def register() -> None:
    """Register the environment with Gymnasium.

    Raises:
      UserError: gym-pusht is not installed.
    """
    # pygame prints a greeting when it is imported.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import gym_pusht  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            'PushT needs the package gym-pusht; install it with `pip install "jaxdiff'
            '[pusht]"`'
        ) from error


def make_raw(environment: Environment = _PUSHT) -> gymnasium.Env:
    """Make the Gymnasium environment, with observations of the state.

    Raises:
      UserError: gym-pusht is not installed.
    """
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return control.make_raw(environment)


def make_env(environment: Environment, options: Any = None) -> gymnasium.Env:
    """Make PushT as policies see it.

    Raises:
      UserError: gym-pusht is not installed.
    """
    return control.as_seen(make_raw(environment), control.split)
