"""The scales of the comparison with other models; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from matey.studies.simulated import Simulated


@dataclass(frozen=True)
class Scale:
    """The size of a comparison.

    Attributes:
        seconds: costs of training on a system, in seconds.
        seeds: number of runs of each point.
        max_windows: largest number of windows to score each model on, per system and lead.
        device: the device to train on, ``cpu`` or ``cuda``.
        data: the data sets to simulate.
        paths: paths by system of the data that must exist, if none is simulated.
    """

    seconds: str
    seeds: int
    max_windows: int
    device: str = "cpu"
    data: tuple[Simulated, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)


SYSTEMS = ("shallow_water", "diffusion_reaction")
SCALES = {
    "tiny": Scale("2", 1, 16, data=tuple(Simulated(system, 32, 10, 13) for system in SYSTEMS)),
    "laptop": Scale("30,110", 3, 200, data=tuple(Simulated(system, 64, 200, 101) for system in SYSTEMS)),
    "paper": Scale(
        "3600",
        3,
        1000,
        "cuda",
        paths={
            "shallow_water": "data/pdebench/2D_rdb_NA_NA.h5",
            "diffusion_reaction": "data/pdebench/2D_diff-react_NA_NA.h5",
        },
    ),
}
"""``laptop`` has the demo's data and costs like those of `make demo`; ``paper`` the official files of 128 x 128 cells."""
