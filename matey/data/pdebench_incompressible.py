"""PDEBench's incompressible, inhomogeneous flow: velocity and a tracer between no-slip walls, pushed by a static force.

Root datasets ``velocity`` (b, t, x, y, 2), ``particles`` (b, t, x, y, 1), ``force`` (b, x, y, 2) and ``t`` (b, t); ``b``
counts trajectories (4 per released file), and x comes before y. Attributes: ``config``, the generator's YAML, and
``latestIndex``, the last frame that was written; frames after it are fill values. The force, constant in time, is given and
not predicted. Source: PDEBench (Takamoto et al. 2022, arXiv:2210.07182), ``data_gen/src/sim_ns_incomp_2d.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from einops import rearrange

from matey.data.axis_names import order_of
from matey.data.coordinates import mean_step, stored_coordinates
from matey.data.hdf5 import attribute_of, check_count, chunk_on_grid, described_hdf5, read_hdf5, read_part
from matey.data.hdf5_layouts import axis_sizes, hdf5_reader, numbers, read_config
from matey.data.trajectories import Cells, Coordinates, DataError, Trajectory, TrajectorySet
from matey.data.unwritten import check_values

SYSTEM = "incompressible"
AXES = {"velocity": "b t x y 2", "particles": "b t x y 1", "t": "b t"}
FORCE = ("force_x", "force_y")
PARAMETERS = ("seed", "NU", "scale", "smoothness", "force_scale", "force_smoothness")


class IncompressibleFile(TrajectorySet):
    """One file, which holds a few trajectories of the same seed."""

    system = SYSTEM
    fields = ("velocity_x", "velocity_y", "tracer")
    units = ("1", "1", "1")
    length_unit = time_unit = "1"

    def __init__(self, path: Path) -> None:
        """Describe the trajectories of ``path``.

        Raises:
            DataError: a dataset is missing or does not fit the others, or no frame was written.
        """
        with described_hdf5(path) as file:
            sizes = axis_sizes(file, AXES, SYSTEM)
            check_count(path, sizes["b"])
            num_frames = _num_written(file, sizes["t"])
            config = read_config(file)
            size_x, size_y = _domain_size(config)
            parameters = numbers(config, PARAMETERS)
            times = file["t"][:, :num_frames]
            self._chunk = chunk_on_grid(file["velocity"], AXES["velocity"])
            self._order = order_of(AXES["velocity"].split())
            self.given = FORCE if _has_force(file, sizes) else ()
        self.trajectories = tuple(
            Trajectory(
                source=path,
                name=str(index),
                num_frames=num_frames,
                grid=(1, sizes["y"], sizes["x"]),
                spacing=(1.0, size_y / sizes["y"], size_x / sizes["x"]),
                boundary=("none", "wall", "wall"),
                time_step=mean_step(times[index], f"{path}, t of trajectory {index}"),
                parameters=parameters,
            )
            for index in range(sizes["b"])
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        source, (_, y, x) = self.trajectories[trajectory].source, cells
        parts = [read_hdf5(source, name, start, stop, (x, y), trajectory) for name in ("velocity", "particles")]
        return rearrange(np.concatenate(parts, axis=-1), "t x y f -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for number in trajectories:  # the file has no coordinates of the cells
            about = self.trajectories[number]
            yield stored_coordinates(about.source, "t", (number, slice(about.num_frames))) if axis == "time" else None

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        index = (trajectory, cells[2], cells[1], FORCE.index(name))
        return rearrange(read_part(self.trajectories[trajectory].source, "force", index), "x y -> 1 1 y x")


READER = hdf5_reader(
    layout="PDEBench incompressible ('velocity' (b, t, x, y, 2), 'particles' (b, t, x, y, 1), 'force', 't')",
    holds=lambda file: (
        sum(name in file for name in ("velocity", "particles", "force")) >= 2
    ),  # opening names the others
    open=IncompressibleFile,
)


def _has_force(file: h5py.File, sizes: Mapping[str, int]) -> bool:
    """Whether the force is there, in a shape that fits the fields; a file without it still has all predicted fields."""
    force = file.get("force")
    check_values(force)
    return isinstance(force, h5py.Dataset) and force.shape == (sizes["b"], sizes["x"], sizes["y"], len(FORCE))


def _num_written(file: h5py.File, num_stored: int) -> int:
    """Return the number of frames that hold data; a run that was stopped leaves the rest of its datasets unwritten."""
    num_written = int(attribute_of(file, "latestIndex", num_stored - 1)) + 1
    if not 0 < num_written <= num_stored:
        raise DataError(
            f"{file.filename}, attribute latestIndex: expected the last frame written, 0 to {num_stored - 1}, "
            f"got {num_written - 1}; run the generator again or set it right."
        )
    return num_written


def _domain_size(config: dict[str, Any]) -> tuple[float, float]:
    """Return the length of the domain along x and y; 1 in the release, since its generator makes no initial state otherwise."""
    try:
        size_x, size_y = (float(size) for size in config.get("domain_size", ()))
    except (TypeError, ValueError):
        return 1.0, 1.0
    return size_x, size_y
