"""Registries of things that are chosen by name: MATEY's own, and those added by an installed package or a script.

Each kind, such as the readers of file formats, has one `Registry`. A package adds to it by an entry point in the kind's
group (``matey.readers``), a script or a notebook by `Registry.register`. A package is imported only when one of its names,
or all things of a kind, are asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from matey.mistakes import Mistake, nearest_name, one_line

Thing = TypeVar("Thing")
Decorated = TypeVar("Decorated")


class RegistryError(Mistake):
    """An unknown name, or a package whose entry cannot be used: one sentence that says what to do."""


class Registry(Generic[Thing]):
    """Things of one kind by their names.

    Args:
        kind: the word for such a thing in messages, such as ``reader``.
        group: group of entry points by which packages add to it, such as ``matey.readers``.
        own: the place of each of MATEY's own things by name, written like an entry point (``package.module:NAME``).
        type: the type of the things, written likewise; by default any callable.
        reserved: names that have another meaning where such things are used.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        own: Mapping[str, str],
        type: str = "collections.abc:Callable",
        reserved: Collection[str] = (),
    ) -> None:
        self.kind, self.group, self.own, self.type, self.reserved = kind, group, dict(own), type, reserved
        self._loaded: dict[str, Thing] = {}

    def __getitem__(self, name: str) -> Thing:
        """Return the thing with a name.

        Raises:
            RegistryError: nothing has that name, or its package cannot be imported or holds a thing of another type.
        """
        if name not in self._loaded:
            if name in self.own:
                self._loaded[name] = _at(self.own[name])
            else:
                self.check(name)
                self._loaded[name] = self._load(self._of_packages[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over all names: MATEY's own, those registered, then those of packages."""
        return iter(dict.fromkeys([*self.own, *self._loaded, *self._of_packages]))

    def items(self) -> Iterator[tuple[str, Thing]]:
        """Iterate over all names and things, MATEY's own first; a package is imported when its turn comes."""
        return ((name, self[name]) for name in self)

    def check(self, name: str) -> str:
        """Return a name if there is a thing of that name; nothing is imported.

        Raises:
            RegistryError: nothing has that name; the message lists the known names and the nearest one.
        """
        if name not in self.own and name not in self._loaded and name not in self._of_packages:
            names = list(self)
            hint = nearest_name(name[:80], names)
            raise RegistryError(f"there is no {self.kind} {name[:80]!r}; there are {', '.join(names)}.{hint}")
        return name

    def register(self, name: str) -> Callable[[Decorated], Decorated]:
        """Return a decorator that registers its object under a name in this process.

        Raises:
            RegistryError: the name is taken, or the object is not of the registry's type.
        """

        def decorate(thing: Decorated) -> Decorated:
            if name in self.reserved or name in self.own or _differs(self._loaded.get(name), thing):
                raise RegistryError(f"The name {name!r} of a {self.kind} is taken already; register another one.")
            self._loaded[name] = self._typed(thing, f"The {self.kind} {name!r}")
            return thing

        return decorate

    def _load(self, point: EntryPoint) -> Thing:
        about = self._about(point)
        try:
            thing = point.load()
        except Exception as error:  # code of other packages may raise anything
            raise RegistryError(
                f"{about} cannot be imported ({type(error).__name__}: {one_line(error)}); repair or uninstall that package."
            ) from error
        return self._typed(thing, about)

    def _typed(self, thing: object, about: str) -> Thing:
        expected = _at(self.type)
        if not isinstance(thing, expected):
            raise RegistryError(f"{about} must be of type {expected.__name__}, got {type(thing).__name__}; correct it.")
        return cast(Thing, thing)

    @cached_property
    def _of_packages(self) -> dict[str, EntryPoint]:
        """The entry points of installed packages by name; a name that has another meaning is an error."""
        found = {point.name: point for point in entry_points(group=self.group)}
        for name, point in found.items():
            if name in self.reserved or name in self.own:
                raise RegistryError(
                    f"{self._about(point)} has a name that is taken already; rename it, or uninstall it."
                )
        return dict(sorted(found.items()))

    def _about(self, point: EntryPoint) -> str:
        package = "an unknown package" if point.dist is None else f"the package {point.dist.name}"
        return f"The {self.kind} {point.name!r} of {package} (entry point {self.group}: {point.name} = {point.value})"


def on_first_use(package: str, /, **homes: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package, given the module of each such name."""

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find, lambda: [*vars(sys.modules[package]), *homes]


def _at(place: str) -> Any:  # noqa: ANN401
    """Return the object at a place ``package.module:NAME``."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _differs(before: object, now: object) -> bool:
    """Whether a name would change its meaning; a notebook cell that runs again defines the same thing once more."""
    if before is None or before is now:
        return False
    places = [(getattr(each, "__module__", None), getattr(each, "__qualname__", None)) for each in (before, now)]
    return places[0] != places[1] or None in places[0]
