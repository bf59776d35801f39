"""Compact batched solvers that make small data sets of the systems MATEY learns, and writers of official formats.

Nothing of training or forecasting imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matey.simulate.ensemble import make
    from matey.simulate.systems import SYSTEMS

__all__ = ["SYSTEMS", "make"]

# Imported on first use: the names and settings of the systems are known without NumPy and PyTorch.
_HOME = {"SYSTEMS": "matey.simulate.systems", "make": "matey.simulate.ensemble"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'matey.simulate' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
