"""Names that a package offers and imports on first use, since what lies behind them takes long to import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module


def on_first_use(package: str, /, **homes: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package, given the module of each such name."""

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find, lambda: [*vars(sys.modules[package]), *homes]
