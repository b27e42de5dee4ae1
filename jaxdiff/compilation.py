"""Compiled programs: kept on disk between processes, and announced while they are made.

XLA takes seconds to minutes to compile a planner or a training loop, and the same
program is compiled again in every process. So programs that took more than half a
second are kept in `~/.cache/jaxdiff`, where JAX looks before it compiles. The variable
JAXDIFF_CACHE names another folder, or is "off"; a cache that was given to JAX itself
(`jax_compilation_cache_dir`) stays as it is.
"""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxdiff.files import write_text
from jaxdiff.progress import note, waiting

PATIENCE = 2.0  # seconds of compiling that need no word
_SECONDS = "seconds.json"  # what was compiled -> how long it took
_LARGEST = 2 * 1024**3  # bytes of all kept programs; the least used go first


def cache_folder() -> Path | None:
    """Return the folder of compiled programs, or None if none are kept."""
    named = os.environ.get("JAXDIFF_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jaxdiff"


def keep_programs() -> None:
    """Let JAX keep compiled programs, from now on; see the head of this module."""
    folder = cache_folder()
    if folder is None or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if not usable:
        note(
            f"compiled programs cannot be kept in {folder}; set JAXDIFF_CACHE to "
            'another folder, or to "off"'
        )
        os.environ["JAXDIFF_CACHE"] = "off"  # said once
        return
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if importlib.util.find_spec("filelock"):  # which JAX needs to leave programs out
        jax.config.update("jax_compilation_cache_max_size", _LARGEST)
    jax.config.update("jax_compilation_cache_dir", str(folder))


class _Compiler:
    """What JAX reports of its work: whether it compiles now, and for how long."""

    def __init__(self) -> None:
        self.busy, self.seconds = False, 0.0

    def hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("/jaxpr_trace_duration"):
            self.busy = True  # what was traced is compiled next
        elif event.endswith("/backend_compile_duration"):
            self.busy, self.seconds = False, self.seconds + duration_secs


_compiler = _Compiler()
jax.monitoring.register_event_duration_secs_listener(_compiler.hear)


@contextlib.contextmanager
def compiling(what: str) -> Iterator[None]:
    """Say what is compiled in this block, if that takes longer than two seconds.

    The line tells how long it took the last time. A block that compiles nothing says
    nothing, however long it runs.

    Args:
      what: such as "the updates of denoiser".
    """
    _compiler.busy, before = False, _compiler.seconds

    def line() -> str | None:
        last = _remembered().get(what)
        took = f", which took {last:.0f} s the last time" if last else ""
        return f"compiling {what}{took}" if _compiler.busy else None

    with waiting(line, after=PATIENCE):
        yield
    seconds = _compiler.seconds - before
    if seconds > PATIENCE:
        _remember(what, seconds)


def _remembered() -> dict[str, float]:
    folder = cache_folder()
    if folder is None:
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((folder / _SECONDS).read_text())
        return {str(name): float(value) for name, value in found.items()}
    return {}


def _remember(what: str, seconds: float) -> None:
    folder = cache_folder()
    if folder is None or not folder.is_dir():
        return
    with contextlib.suppress(OSError):  # a message is not worth an error
        text = json.dumps({**_remembered(), what: round(seconds, 1)}, indent=2)
        write_text(folder / _SECONDS, text + "\n")
