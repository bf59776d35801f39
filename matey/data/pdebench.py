"""PDEBench's files: shallow water and diffusion-reaction, and compressible and incompressible flow.

* Shallow water, diffusion-reaction: ``NNNN/data`` holds one trajectory, float32 and channels last; ``NNNN/grid/{x,y,t}`` the
  cell centres and times; the attribute ``config`` of ``NNNN`` the generator's YAML. The two systems have their grid axes in
  different order. Generators: ``data_gen/src/sim_radial_dam_break.py`` and ``sim_diff_react.py``.
* Compressible flow on a periodic square, from random waves (Rand) or decaying turbulence (Turb): root datasets ``Vx``, ``Vy``,
  ``density``, ``pressure``, each (n, t, x, y), where ``n`` counts trajectories and x comes before y; ``x-coordinate`` and
  ``y-coordinate`` are cell centres, and ``t-coordinate`` has one entry more than there are frames. Attributes ``M`` (Mach
  number), ``eta`` and ``zeta`` (shear and bulk viscosity). Fields are in the order of the paper on MATEY, velocity first.
  Generator: ``data_gen/data_gen_NLE/CompressibleFluid``.
* Incompressible, inhomogeneous flow, velocity and a tracer between no-slip walls, pushed by a static force: root datasets
  ``velocity`` (b, t, x, y, 2), ``particles`` (b, t, x, y, 1), ``force`` (b, x, y, 2) and ``t`` (b, t); ``b`` counts
  trajectories (4 per released file), and x comes before y; the domain has side 1. Attributes: ``config``, the generator's YAML,
  and ``latestIndex``, the last frame that was written; frames after it are fill values. The force, constant in time, is given
  and not predicted.
  Generator: ``data_gen/src/sim_ns_incomp_2d.py``.

Source: PDEBench (Takamoto et al. 2022, arXiv:2210.07182).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from einops import rearrange

from matey.data import hdf5
from matey.data.coordinates import mean_step, order_of
from matey.data.stored import axis_sizes
from matey.data.trajectories import Boundary, Cells, Coordinates, DataError, Reader, Trajectory, TrajectorySet


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
            DataError: a group has no ``data``, or its shape is not that of the layout.
        """
        with hdf5.described_hdf5(path) as file:
            self.trajectories = tuple(self._described(file, path, name) for name in file)
        self._order = order_of(self.disk_axes.split())

    @classmethod
    def reader(cls) -> Reader:
        """Return the reader of this system's files."""
        layout = f"PDEBench {cls.system} (groups 0000, 0001, ..., each with 'data' {cls._shape()})"
        return hdf5.hdf5_reader(layout, cls._is_layout_of, cls)

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
        item = file.get(f"{name}/data")
        shape: tuple[int, ...] = item.shape if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else ()
        if len(shape) != 4 or shape[-1] != len(self.fields) or 0 in shape:
            came = f"{item.shape} of {item.dtype}" if isinstance(item, h5py.Dataset) else "none"
            raise DataError(
                f"{file.filename}, {name}/data: expected shape {self._shape()}, channels {', '.join(self.fields)}, as for "
                f"{self.system}, got {came}; write the file again in PDEBench's layout."
            )
        hdf5.check_values(item)
        return shape

    def _described(self, file: h5py.File, path: Path, name: str) -> Trajectory:
        size = dict(zip(self.disk_axes.split(), self._data_shape(file, name), strict=True))
        step = {axis: hdf5.stored_step(file, f"{name}/grid/{axis}", size[axis], of_time=axis == "t") for axis in "tyx"}
        return Trajectory(
            source=path,
            name=name,
            num_frames=size["t"],
            grid=(1, size["y"], size["x"]),
            spacing=(1.0, step["y"], step["x"]),
            boundary=self.boundary,
            time_step=step["t"],
            parameters=hdf5.numbers(_simulation(file[name]), self.settings),
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        about = self.trajectories[trajectory]
        along = dict(zip("zyx", cells, strict=True))
        on_disk = [along[axis] for axis in self.disk_axes.split()[1:3]]
        frames = hdf5.read_part(about.source, f"{about.name}/data", (slice(start, stop), *on_disk))
        return rearrange(frames, f"{self.disk_axes} -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for about in (self.trajectories[number] for number in trajectories):
            yield hdf5.stored_coordinates(about.source, f"{about.name}/grid/{'t' if axis == 'time' else axis}")


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
    simulation = hdf5.read_config(group).get("sim")
    return simulation if isinstance(simulation, dict) else {}


RANDOM, TURBULENT = "compressible_rand", "compressible_turb"
DATASETS, COMPRESSIBLE_AXES = ("Vx", "Vy", "density", "pressure"), "n t x y"


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
        with hdf5.described_hdf5(path) as file:
            sizes = axis_sizes(path, hdf5.arrays_of(path), dict.fromkeys(DATASETS, COMPRESSIBLE_AXES), RANDOM)
            self._order = order_of(COMPRESSIBLE_AXES.split())
            self.system = TURBULENT if _starts_uniform(file) else RANDOM
            step = {axis: hdf5.stored_step(file, f"{axis}-coordinate", sizes[axis]) for axis in "yx"}
            time_step = hdf5.stored_step(file, "t-coordinate", sizes["t"], of_time=True, or_more=True)
            parameters = hdf5.numbers(hdf5.attributes_of(file), ("M", "eta", "zeta"))
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
        parts = [hdf5.read_part(source, name, (trajectory, slice(start, stop), x, y)) for name in DATASETS]
        return rearrange(parts, "f t x y -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for about in (self.trajectories[number] for number in trajectories):
            if axis == "time":  # the file has one time more than frames
                yield hdf5.stored_coordinates(about.source, "t-coordinate", (slice(about.num_frames),))
            else:
                yield hdf5.stored_coordinates(about.source, f"{axis}-coordinate")


COMPRESSIBLE_READER = hdf5.hdf5_reader(
    layout="PDEBench compressible ('Vx', 'Vy', 'density', 'pressure', each (n, t, x, y))",
    holds=lambda file: sum(name in file for name in DATASETS) >= 2,  # opening names the missing ones
    open=CompressibleFile,
)


def _starts_uniform(file: h5py.File) -> bool:
    """Whether the first trajectory starts from one density everywhere, as Turb does and Rand does not.

    The two kinds share layout and attributes, and a file may have been renamed; this tells them apart.
    """
    density = file["density"][0, 0]
    return float(np.ptp(density)) <= 1e-5 * abs(float(density.flat[0]))


INCOMPRESSIBLE = "incompressible"
INCOMPRESSIBLE_AXES = {"velocity": "b t x y 2", "particles": "b t x y 1", "force": "b x y 2", "t": "b t"}
FORCE = ("force_x", "force_y")
PARAMETERS = ("seed", "NU", "scale", "smoothness", "force_scale", "force_smoothness")


class IncompressibleFile(TrajectorySet):
    """One file, which holds a few trajectories of the same seed."""

    system = INCOMPRESSIBLE
    fields = ("velocity_x", "velocity_y", "tracer")
    units = ("1", "1", "1")
    length_unit = time_unit = "1"
    given = FORCE

    def __init__(self, path: Path) -> None:
        """Describe the trajectories of ``path``.

        Raises:
            DataError: a dataset is missing or does not fit the others.
        """
        with hdf5.described_hdf5(path) as file:
            sizes = axis_sizes(path, hdf5.arrays_of(path), INCOMPRESSIBLE_AXES, INCOMPRESSIBLE)
            num_frames = min(int(hdf5.attribute_of(file, "latestIndex", sizes["t"])) + 1, sizes["t"])
            parameters = hdf5.numbers(hdf5.read_config(file), PARAMETERS)
            times = file["t"][:, :num_frames]
            self._order = order_of(INCOMPRESSIBLE_AXES["velocity"].split())
        self.trajectories = tuple(
            Trajectory(
                source=path,
                name=str(index),
                num_frames=num_frames,
                grid=(1, sizes["y"], sizes["x"]),
                spacing=(1.0, 1 / sizes["y"], 1 / sizes["x"]),
                boundary=("none", "wall", "wall"),
                time_step=mean_step(times[index], f"{path}, t of trajectory {index}"),
                parameters=parameters,
            )
            for index in range(sizes["b"])
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        source, (_, y, x) = self.trajectories[trajectory].source, cells
        parts = [
            hdf5.read_part(source, name, (trajectory, slice(start, stop), x, y)) for name in ("velocity", "particles")
        ]
        return rearrange(np.concatenate(parts, axis=-1), "t x y f -> t f 1 y x")

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for number in trajectories:  # the file has no coordinates of the cells
            about = self.trajectories[number]
            of_time = axis == "time"
            yield hdf5.stored_coordinates(about.source, "t", (number, slice(about.num_frames))) if of_time else None

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        index = (trajectory, cells[2], cells[1], FORCE.index(name))
        return rearrange(hdf5.read_part(self.trajectories[trajectory].source, "force", index), "x y -> 1 1 y x")


INCOMPRESSIBLE_READER = hdf5.hdf5_reader(
    layout="PDEBench incompressible ('velocity' (b, t, x, y, 2), 'particles' (b, t, x, y, 1), 'force', 't')",
    holds=lambda file: (
        sum(name in file for name in ("velocity", "particles", "force")) >= 2
    ),  # opening names the others
    open=IncompressibleFile,
)
