"""miniWeather's colliding thermals: a warm and a cold bubble in a neutral atmosphere, periodic in x, solid below and above.

Variables ``t`` (t) and ``dens``, ``theta``, ``uwnd``, ``wwnd`` (t, z, x): perturbations of density and potential
temperature, and winds. Classic netCDF as the code writes it, or netCDF-4. Full fields are yielded: the background is
``hy_dens`` and ``hy_theta`` (z) where a file has them, else that of the code's neutral set-ups (300 K throughout).

The data is two-dimensional, and two-dimensional data has ``z = 1`` in this package: **the vertical z of the file lies
on our y axis**, ``(t, f, 1, file's z, x)``, y = 0 at the ground. The vertical wind keeps its name, ``velocity_z``.
Source: github.com/mrnorman/miniWeather, ``c/miniWeather_serial.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange

from matey.data.arrays import NETCDF, kind_of
from matey.data.coordinates import mean_step
from matey.data.hdf5 import HDF5
from matey.data.stored import axis_sizes
from matey.data.trajectories import Cells, Reader, Trajectory, TrajectorySet

LENGTH, HEIGHT = 2e4, 1e4  # size of the domain in m; fixed in the code and not stored
PERTURBATIONS = ("dens", "theta")
WINDS = ("uwnd", "wwnd")
BACKGROUND = ("hy_dens", "hy_theta")


class MiniWeatherFile(TrajectorySet):
    """One file, which holds one trajectory."""

    system = "colliding_thermals"
    fields = ("density", "potential_temperature", "velocity_x", "velocity_z")
    units = ("kg/m^3", "K", "m/s", "m/s")
    length_unit, time_unit = "m", "s"

    def __init__(self, path: Path) -> None:
        """Describe the trajectory of ``path``.

        Raises:
            DataError: a variable is missing or its axes are not t, z, x.
        """
        variables = kind_of(path).arrays(path)
        has_background = any(name in variables for name in BACKGROUND)
        along = dict.fromkeys((*PERTURBATIONS, *WINDS), "t z x") | {"t": "t"}
        along |= dict.fromkeys(BACKGROUND, "z") if has_background else {}
        sizes = axis_sizes(path, variables, along, self.system)
        num_frames, num_z, num_x = (sizes[axis] for axis in "tzx")
        self.trajectories = (
            Trajectory(
                source=path,
                name=path.stem,
                num_frames=num_frames,
                grid=(1, num_z, num_x),
                spacing=(1.0, HEIGHT / num_z, LENGTH / num_x),
                boundary=("none", "wall", "periodic"),
                time_step=mean_step(_read(path, ("t",), slice(0, num_frames))[0], f"{path}, t"),
            ),
        )
        self._background = neutral_background(num_z)  # (f, z)
        if has_background:
            self._background = np.stack(_read(path, BACKGROUND, slice(0, num_z)))

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        source = self.trajectories[trajectory].source
        state = np.array(_read(source, (*PERTURBATIONS, *WINDS), slice(start, stop), *cells[1:]), dtype=np.float64)
        state[:2] += self._background[:, None, cells[1], None]  # (f, t, z, x)
        return rearrange(state, "f t y x -> t f 1 y x")


def neutral_background(num_z: int) -> np.ndarray:
    """Return density (kg/m^3) and potential temperature (K) of the hydrostatic state at 300 K, ``(f, z)``.

    Values at cell centres, as miniWeather's C code has them; its Fortran code takes cell averages, which differ by 1e-5
    of the value.
    """
    gravity, heat_pressure, gas_constant = 9.8, 1004.0, 287.0
    pressure_constant, gamma = 27.5629410929725921310572974482, 1.40027894002789400278940027894
    theta = 300.0
    z = (np.arange(num_z) + 0.5) * HEIGHT / num_z
    exner = 1 - gravity * z / (heat_pressure * theta)
    pressure = 1e5 * exner ** (heat_pressure / gas_constant)
    density = (pressure / pressure_constant) ** (1 / gamma) / theta
    return np.stack([density, np.full(num_z, theta)])


def recognises(path: Path) -> bool:
    """Whether at least two of the four variables are there; opening names the missing ones."""
    kind = next((kind for kind in (NETCDF, HDF5) if kind.recognises(path)), None)
    return kind is not None and len(kind.arrays(path).keys() & {*PERTURBATIONS, *WINDS}) >= 2


READER = Reader(
    layout="miniWeather ('dens', 'theta', 'uwnd', 'wwnd', each (t, z, x), and 't')",
    suffixes=(".nc",),
    recognises=recognises,
    open=MiniWeatherFile,
)


def _read(path: Path, names: Sequence[str], *part: slice) -> list[np.ndarray]:
    """Read a part of some variables."""
    kind = kind_of(path)
    return [kind.read(path, name, part) for name in names]
