"""What a dataset says of the world that it was recorded in: shapes and environment."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which entries of an observation are what; empty where it is not known.

    Attributes:
      position: entries that are a position, one for each action.
      velocity: entries that are its velocity, in the same order.
      goal: entries that a goal gives, in the order of the goal. A goal that is shorter
        gives the first of them.
    """

    position: tuple[int, ...] = ()
    velocity: tuple[int, ...] = ()
    goal: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an algorithm is built for.

    Attributes:
      observation_shape: of an observation before it is flattened, `(O,)` or that of a
        picture such as `(32, 32, 3)`.
      action_dim: A.
      goal_dim: G, 0 where the data have no goals.
      layout: of an observation.
    """

    observation_shape: tuple[int, ...]
    action_dim: int
    goal_dim: int = 0
    layout: Layout = Layout()

    @property
    def observation_dim(self) -> int:
        """O, the entries of a flat observation."""
        size = 1
        for length in self.observation_shape:
            size *= length
        return size


class Environment(NamedTuple):
    """How to make an environment again.

    Of a stored specification only these three are read: its entry point and wrappers
    are code.

    Attributes:
      id: Gymnasium id, perhaps `module:Id` if a user named it so.
      kwargs: keyword arguments of the environment.
      max_episode_steps: time limit; None for the registered one.
    """

    id: str
    kwargs: Mapping[str, Any] = {}
    max_episode_steps: int | None = None


def spec_to_plain(spec: Spec) -> dict[str, Any]:
    """Return a `Spec` as JSON values."""
    return {
        "observation_shape": list(spec.observation_shape),
        "action_dim": spec.action_dim,
        "goal_dim": spec.goal_dim,
        "layout": {k: list(v) for k, v in dataclasses.asdict(spec.layout).items()},
    }


def spec_from_plain(values: Mapping[str, Any]) -> Spec:
    """Build a `Spec` from JSON values.

    Raises:
      KeyError, TypeError: values that are not those of a `Spec`.
    """
    layout = {k: tuple(map(int, v)) for k, v in values["layout"].items()}
    return Spec(
        observation_shape=tuple(map(int, values["observation_shape"])),
        action_dim=int(values["action_dim"]),
        goal_dim=int(values["goal_dim"]),
        layout=Layout(**layout),
    )
