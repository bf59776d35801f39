"""Compact batched solvers that make small data sets of the systems MATEY learns, and writers of official formats.

Nothing of training or forecasting imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matey.registry import on_first_use

if TYPE_CHECKING:
    from matey.simulate.catalogue import SYSTEMS
    from matey.simulate.ensemble import make

__all__ = ["SYSTEMS", "make"]

# Imported on first use: the names and settings of the systems are known without NumPy and PyTorch.
__getattr__, __dir__ = on_first_use(__name__, SYSTEMS="matey.simulate.catalogue", make="matey.simulate.ensemble")
