"""PDEBench files with one group per seed: shallow water and diffusion-reaction.

``NNNN/data`` holds one trajectory, float32 and channels last; ``NNNN/grid/{x,y,t}`` the cell centres and times; the
attribute ``config`` of ``NNNN`` the generator's YAML. The two systems have their grid axes in different order. Source:
PDEBench (Takamoto et al. 2022, arXiv:2210.07182), ``data_gen/src/sim_radial_dam_break.py`` and ``sim_diff_react.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from einops import rearrange

from matey.data.axis_names import order_of
from matey.data.coordinates import stored_coordinates, stored_step
from matey.data.hdf5 import chunk_on_grid, described_hdf5, read_hdf5
from matey.data.hdf5_layouts import hdf5_reader, numbers, read_config
from matey.data.trajectories import Boundary, Cells, Coordinates, DataError, Reader, Trajectory, TrajectorySet
from matey.data.unwritten import check_values


class SeedGroupFile(TrajectorySet):
    """One file with a group per seed.

    Attributes:
        disk_axes: axes of ``data`` in the order of the file.
        boundary: kind of boundary at the ends of ``z, y, x``.
        mark: an entry of the YAML that only this system has.
        settings: entries of the YAML that become parameters of the trajectory.
    """

    length_unit = time_unit = "1"
    disk_axes: str
    boundary: tuple[Boundary, Boundary, Boundary]
    mark: str
    settings: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        """Describe the trajectories of ``path``.

        Raises:
            DataError: a group has no ``data``, or its shape is not that of the layout or of the other groups.
        """
        with described_hdf5(path) as file:
            names = list(file)
            shapes = [self._data_shape(file, name) for name in names]
            for name, shape in zip(names, shapes, strict=True):
                if shape != shapes[0]:
                    raise DataError(
                        f"{path}, {name}/data: expected shape {shapes[0]} as in {names[0]}/data, got {shape}; "
                        f"put runs of different shape into files of their own."
                    )
            self.trajectories = tuple(self._described(file, path, name, shapes[0]) for name in names)
            self._chunk = chunk_on_grid(file[names[0]]["data"], self.disk_axes)
            self._order = order_of(self.disk_axes.split())

    @classmethod
    def reader(cls) -> Reader:
        """Return the reader of this system's files."""
        layout = f"PDEBench {cls.system} (groups 0000, 0001, ..., each with 'data' {cls._shape()})"
        return hdf5_reader(layout, cls._is_layout_of, cls)

    @classmethod
    def _is_layout_of(cls, file: h5py.File) -> bool:
        """Whether a file has a group per seed and this system's YAML or, without YAML, its number of channels."""
        group = next((item for item in file.values() if isinstance(item, h5py.Group) and "data" in item), None)
        if group is None or not isinstance(group["data"], h5py.Dataset):
            return False
        if simulation := _simulation(group):
            return cls.mark in simulation
        shape = group["data"].shape
        return len(shape) == 4 and shape[-1] == len(cls.fields)

    @classmethod
    def _shape(cls) -> str:
        """Return the shape of ``data`` as a message states it."""
        t, first, second, _ = cls.disk_axes.split()
        return f"({t}, {first}, {second}, {len(cls.fields)})"

    def _data_shape(self, file: h5py.File, name: str) -> tuple[int, ...]:
        """Return the shape of one group's ``data``; raise DataError if it does not fit the layout."""
        group = file.get(name)
        if not isinstance(group, h5py.Group) or not isinstance(group.get("data"), h5py.Dataset):
            members = ", ".join(group) if isinstance(group, h5py.Group) else "no group"
            raise DataError(
                f"{file.filename}, group {name}: expected a dataset 'data' of shape {self._shape()} ({self.system}), "
                f"found {members or 'nothing'}; remove the group or write the file again."
            )
        shape, dtype = group["data"].shape, group["data"].dtype
        if len(shape) != 4 or shape[-1] != len(self.fields) or 0 in shape or dtype.kind not in "fiu":
            raise DataError(
                f"{file.filename}, {name}/data: expected shape {self._shape()}, channels {', '.join(self.fields)}, as for "
                f"{self.system}, got {shape} of {dtype}; write the file again in PDEBench's layout."
            )
        check_values(group["data"])
        return shape

    def _described(self, file: h5py.File, path: Path, name: str, shape: tuple[int, ...]) -> Trajectory:
        size = dict(zip(self.disk_axes.split(), shape, strict=True))
        step = {axis: stored_step(file, f"{name}/grid/{axis}", size[axis], of_time=axis == "t") for axis in "tyx"}
        return Trajectory(
            source=path,
            name=name,
            num_frames=size["t"],
            grid=(1, size["y"], size["x"]),
            spacing=(1.0, step["y"], step["x"]),
            boundary=self.boundary,
            time_step=step["t"],
            parameters=numbers(_simulation(file[name]), self.settings),
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        about = self.trajectories[trajectory]
        along = dict(zip("zyx", cells, strict=True))
        on_disk = [along[axis] for axis in self.disk_axes.split()[1:3]]
        frames = read_hdf5(about.source, f"{about.name}/data", start, stop, on_disk)
        return rearrange(frames, f"{self.disk_axes} -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for about in (self.trajectories[number] for number in trajectories):
            yield stored_coordinates(about.source, f"{about.name}/grid/{'t' if axis == 'time' else axis}")


class ShallowWaterFile(SeedGroupFile):
    """Radial dam breaks."""

    system = "shallow_water"
    fields = ("water_height",)
    units = ("1",)
    disk_axes = "t x y f"  # clawpack's q[0, i, j]: x first
    boundary = ("none", "open", "open")
    mark = "dam_radius"
    settings = ("seed", "dam_radius", "gravity")


class DiffusionReactionFile(SeedGroupFile):
    """An activator and an inhibitor that diffuse and react."""

    system = "diffusion_reaction"
    fields = ("activator", "inhibitor")
    units = ("1", "1")
    disk_axes = "t y x f"  # the generator reshapes to (-1, Ny, Nx), against its own docstring
    boundary = ("none", "no_flux", "no_flux")
    mark = "Du"
    settings = ("seed", "Du", "Dv", "k")


SHALLOW_WATER_READER, DIFFUSION_REACTION_READER = ShallowWaterFile.reader(), DiffusionReactionFile.reader()


def _simulation(group: h5py.Group) -> dict[str, Any]:
    """Return the ``sim`` section of a group's ``config``, empty if there is none."""
    simulation = read_config(group).get("sim")
    return simulation if isinstance(simulation, dict) else {}
