"""Every system that can be simulated, by its name: ours, and those that packages add (docs/extending.md)."""

from __future__ import annotations

from typing import Any

from matey.registry import Registry
from matey.simulate.catalogue import CATALOGUE

SYSTEMS: Registry[Any] = Registry(
    "system",
    "matey.systems",
    {name: f"matey.simulate.our_systems:{name.upper()}" for name in CATALOGUE},
    type="matey.simulate.ensemble:System",
)
"""A `matey.simulate.ensemble.System` for each name; the solver is imported on use."""
