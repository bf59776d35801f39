"""PDEBench's compressible flow on a periodic square, from random waves (Rand) or decaying turbulence (Turb).

Root datasets ``Vx``, ``Vy``, ``density``, ``pressure``, each (n, t, x, y), where ``n`` counts trajectories and x comes
before y; ``x-coordinate`` and ``y-coordinate`` are cell centres, and ``t-coordinate`` has one entry more than there are
frames. Attributes ``M`` (Mach number), ``eta`` and ``zeta`` (shear and bulk viscosity). Fields are in the order of the
paper on MATEY, velocity first. Source: PDEBench (Takamoto et al. 2022, arXiv:2210.07182),
``data_gen/data_gen_NLE/CompressibleFluid``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from einops import rearrange

from matey.data.axis_names import order_of
from matey.data.coordinates import stored_coordinates, stored_step
from matey.data.hdf5 import attributes_of, check_count, check_memory, chunk_on_grid, described_hdf5, read_hdf5
from matey.data.hdf5_layouts import axis_sizes, hdf5_reader, numbers
from matey.data.trajectories import Cells, Coordinates, Trajectory, TrajectorySet

RANDOM, TURBULENT = "compressible_rand", "compressible_turb"
DATASETS, AXES = ("Vx", "Vy", "density", "pressure"), "n t x y"


class CompressibleFile(TrajectorySet):
    """One file with many trajectories that share viscosity and Mach number."""

    fields = ("velocity_x", "velocity_y", "density", "pressure")
    units = ("1", "1", "1", "1")
    length_unit = time_unit = "1"

    def __init__(self, path: Path) -> None:
        """Describe the trajectories of ``path``.

        Raises:
            DataError: a dataset is missing or does not fit the others.
        """
        with described_hdf5(path) as file:
            sizes = axis_sizes(file, dict.fromkeys(DATASETS, AXES), "PDEBench's compressible flow")
            check_count(path, sizes["n"])
            self._chunk = chunk_on_grid(file[DATASETS[0]], AXES)
            self._order = order_of(AXES.split())
            self.system = TURBULENT if _starts_uniform(file) else RANDOM
            step = {axis: stored_step(file, f"{axis}-coordinate", sizes[axis]) for axis in "yx"}
            time_step = stored_step(file, "t-coordinate", sizes["t"], of_time=True, or_more=True)
            parameters = numbers(attributes_of(file), ("M", "eta", "zeta"))
        self.trajectories = tuple(
            Trajectory(
                source=path,
                name=str(index),
                num_frames=sizes["t"],
                grid=(1, sizes["y"], sizes["x"]),
                spacing=(1.0, step["y"], step["x"]),
                boundary=("none", "periodic", "periodic"),
                time_step=time_step,
                parameters=parameters,
            )
            for index in range(sizes["n"])
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        source, (_, y, x) = self.trajectories[trajectory].source, cells
        parts = [read_hdf5(source, name, start, stop, (x, y), trajectory) for name in DATASETS]
        return rearrange(parts, "f t x y -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for about in (self.trajectories[number] for number in trajectories):
            if axis == "time":  # the file has one time more than frames
                yield stored_coordinates(about.source, "t-coordinate", (slice(about.num_frames),))
            else:
                yield stored_coordinates(about.source, f"{axis}-coordinate")


READER = hdf5_reader(
    layout="PDEBench compressible ('Vx', 'Vy', 'density', 'pressure', each (n, t, x, y))",
    holds=lambda file: sum(name in file for name in DATASETS) >= 2,  # opening names the missing ones
    open=CompressibleFile,
)


def _starts_uniform(file: h5py.File) -> bool:
    """Whether the first trajectory starts from one density everywhere, as Turb does and Rand does not.

    The two kinds share layout and attributes, and a file may have been renamed; this tells them apart.
    """
    check_memory(file["density"], math.prod(file["density"].shape[2:]))
    density = file["density"][0, 0]
    return float(np.ptp(density)) <= 1e-5 * abs(float(density.flat[0]))
