"""The systems that ``tools/simulate.py`` can make, as its command line names them; packages add more (docs/extending.md).

Nothing here needs PyTorch, so that a command line is read, and a mistake in it reported, before the solvers are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matey.registry import Registry

MOST_SETTING = 10.0
CAVITY_INTERVAL = 0.01  # between the published frames of the cavity, to t = 20


@dataclass(frozen=True)
class Published:
    """Facts about a system that need no solver.

    Attributes:
        summary: one line that describes the system.
        num_trajectories: default number of trajectories: that of the published set where it is known; the same holds
            for ``resolution`` and ``num_frames``.
        resolution: number of cells along the longest axis.
        num_frames: number of frames of a trajectory, the initial one included.
        num_values: number of float32 values stored for each of ``resolution^2`` cells in a frame, for an estimate of
            the size.
        settings: numbers of the physics that the user may choose, and their defaults.
    """

    summary: str
    num_trajectories: int
    resolution: int
    num_frames: int
    num_values: int
    settings: Mapping[str, float] = field(default_factory=dict)


_SUMMARIES = {
    "shallow_water": "Radial dam break: water depth, waves from a released column, open sides.",
    "diffusion_reaction": "FitzHugh-Nagumo diffusion-reaction: activator and inhibitor, patterns from noise, closed walls.",
    "compressible_rand": "Viscous gas: density, pressure and velocity, from random waves of all four, periodic.",
    "compressible_turb": "Nearly inviscid gas: density, pressure and velocity, from random waves of velocity, periodic.",
    "incompressible": "Incompressible flow in a closed box: velocity and the tracer on which a static force acts.",
    "colliding_thermals": "A warm bubble of air meets a cold one: density, temperature and wind, periodic along x.",
    "mhd_cavity": "Conducting fluid under a moving lid: velocity and magnetic field, closed and conducting walls.",
}
_SIZES = {  # number of trajectories, resolution, number of frames, number of values
    "shallow_water": (1000, 128, 101, 1),
    "diffusion_reaction": (1000, 128, 101, 2),
    "compressible_rand": (10000, 128, 21, 4),
    "compressible_turb": (1000, 512, 21, 4),
    "incompressible": (1096, 512, 1000, 3),
    "colliding_thermals": (96, 256, 51, 4),  # twice as long as float32, on half as many cells
    "mhd_cavity": (96, 128, 2001, 4),
}
_SETTINGS = {
    "compressible_rand": {"mach": 0.1, "viscosity": 0.01},
    "compressible_turb": {"mach": 1.0, "viscosity": 1e-8},
    "incompressible": {"viscosity": 0.01},
    "mhd_cavity": {"interval": CAVITY_INTERVAL},
}
CATALOGUE = {name: Published(text, *_SIZES[name], _SETTINGS.get(name, {})) for name, text in _SUMMARIES.items()}

_MODULES = {"compressible_rand": "compressible", "compressible_turb": "compressible", "colliding_thermals": "thermals"}
SYSTEMS: Registry[Any] = Registry(
    "system",
    "matey.systems",
    {name: f"matey.simulate.{_MODULES.get(name, name)}:{name.upper()}" for name in CATALOGUE},
    type="matey.simulate.ensemble:System",
)
"""A `matey.simulate.ensemble.System` for each name; the solver is imported on use."""

LAYOUTS = {"npy": ("mhd_cavity",)}
"""Layouts of files that only some systems have, and the names of these systems."""


def settings() -> dict[str, list[str]]:
    """Return the physical settings of all systems, and the systems that have each."""
    names = dict.fromkeys(name for system in CATALOGUE.values() for name in system.settings)
    return {name: [key for key, system in CATALOGUE.items() if name in system.settings] for name in names}


def check_sizes(
    num_trajectories: int, resolution: int, num_frames: int, first_seed: int, settings: Mapping[str, float]
) -> None:
    """Raise ValueError for sizes and settings that are out of range."""
    for what, value, least in (
        ("number of trajectories", num_trajectories, 1),
        ("resolution", resolution, 8),
        ("number of frames", num_frames, 2),
        ("first seed", first_seed, 0),
    ):
        if value < least:
            raise ValueError(f"The {what} must be at least {least}, got {value}.")
    for name, setting in settings.items():
        if not 0 < setting <= MOST_SETTING:  # above that, the solvers take too many steps
            raise ValueError(f"The setting {name} must be above 0 and at most {MOST_SETTING:g}, got {setting:g}.")
