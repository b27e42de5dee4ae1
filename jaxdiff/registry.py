"""Tables of names that users extend: samplers, networks, algorithms, tasks.

Options hold names, because a name can be stored in a run and typed on a command line.
A `Registry` maps such names to what they stand for. Three things fill one: jaxdiff
itself, entry points of installed packages, and any module that assigns to it, such as
one that `--import my_module` names:

    from jaxdiff.diffusion import SAMPLERS
    SAMPLERS["mine"] = my_sampler
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from importlib import metadata
from typing import TypeVar

from jaxdiff.errors import UserError, reason

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping of names that also reads the entry points of installed packages.

    Entry points are loaded when the table is first read. They never replace a name that
    is there already.

    Args:
      kind: what the names are, in the singular, such as "sampler".
      things: what is known from the start.
      group: group of entry points, such as "jaxdiff.samplers".
      discover: gives more things when the table is first read, for what is slow to
        import.
    """

    def __init__(
        self,
        kind: str,
        things: Mapping[str, T] | None = None,
        *,
        group: str,
        discover: Callable[[], Mapping[str, T]] | None = None,
    ) -> None:
        self.kind, self.group, self._discover = kind, group, discover
        self._things: dict[str, T] = dict(things or {})
        self._loaded = False

    def find(self, name: str) -> T:
        """Return what `name` stands for.

        Raises:
          UserError: the table does not hold it; the message lists what it holds.
        """
        if name not in self:
            raise UserError(
                f"there is no {self.kind} {name!r}; choose one of {', '.join(self)}, "
                "or import the module that adds it"
            )
        return self[name]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self._discover is not None:
            self._things = {**self._discover(), **self._things}
        for point in metadata.entry_points(group=self.group):
            if point.name in self._things:
                continue
            try:
                self._things[point.name] = point.load()
            except Exception as error:
                # A broken package must not take every command down with it.
                print(
                    f"jaxdiff: the {self.kind} {point.name!r} of {point.value} cannot "
                    f"be loaded ({reason(error)}); it is left out",
                    file=sys.stderr,
                )

    def __getitem__(self, name: str) -> T:
        self._load()
        return self._things[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self._things[name] = thing

    def __delitem__(self, name: str) -> None:
        del self._things[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._things)

    def __len__(self) -> int:
        self._load()
        return len(self._things)


def import_modules(names: Iterable[str]) -> None:
    """Import modules for what they add to the tables.

    The current folder can be imported from, as with `python -m`.

    Args:
      names: dotted names of modules.

    Raises:
      UserError: a module that does not exist or fails while it is imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            # Its own code may raise anything.
            raise UserError(
                f"the module {name!r} cannot be imported ({reason(error)}); check its "
                "name, and that it is installed or lies in the current folder"
            ) from error
