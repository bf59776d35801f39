"""The lid-driven cavity of an incompressible, conducting fluid in a magnetic field along the lid.

    v_t + v.grad v = -grad p + J x B + (1 / Re) lap v       div v = 0
    A_t + v.grad A = (1 / Re_m) lap A                       B = (A_y, -A_x),  J = -lap A

In units of the lid's speed, the side of the square, the density and mu_0 = 1. The equations, walls and initial state are
those of VERTEX-CFD's input ``full_induction_mhd/ldc_2d_bx_010.xml`` in the limits that its artificial compressibility
and divergence cleaning approximate: the vector potential ``A`` and a stream function make B and v free of divergence.
Walls conduct, so the field through them stays as it was, and the fluid sticks to them. The lid is not regularised.

Diffusion is implicit on the interior nodes, by sine transforms: of a scalar that vanishes on the walls, and of a stream
function whose flow does not slip along them. Both operators are built once, for a given length of step. A trajectory is stored
in a self-describing HDF5 file of our own, or as the bare array that MATEY's authors used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn.functional import pad

from matey.simulate.catalogue import CAVITY_INTERVAL
from matey.simulate.ensemble import Ensemble, System, Trajectory
from matey.simulate.layouts import SingleFiles
from matey.simulate.time_stepping import check_steps

HALF_WIDTH = 0.5  # the domain is [-0.5, 0.5]^2
COURANT = 0.8
FIELDS, REYNOLDS_NUMBERS = range(5, 31), range(50, 201)  # of the ensemble: applied field in hundredths, and Re_m

# ARS(2,2,2) of Ascher, Ruuth and Spiteri 1997, Appl. Numer. Math. 25, 151: second order, L-stable where implicit.
GAMMA = 1 - math.sqrt(0.5)
DELTA = 1 - 1 / (2 * GAMMA)


@dataclass(frozen=True)
class Cavity:
    """Parameters of a cavity.

    Attributes:
        field: applied magnetic field along x, in units of the field whose Alfven speed is the lid's speed.
        magnetic_reynolds: lid speed times side over magnetic diffusivity.
        reynolds: lid speed times side over viscosity.
    """

    field: float
    magnetic_reynolds: float
    reynolds: float = 100.0


def draw_cavity(seed: int) -> Cavity:
    """Choose the cavity of a seed: number 0 is VERTEX-CFD's, and the first 3926 differ from each other.

    The parameters of the published set are unknown. Files are named by their parameters, so seeds must not collide.
    Steps of nearly the golden ratio of the number of pairs, and prime to it, spread any few of them evenly.
    """
    count = len(REYNOLDS_NUMBERS)
    first = FIELDS.index(10) * count + REYNOLDS_NUMBERS.index(100)
    field, number = divmod((first + 2427 * seed) % (len(FIELDS) * count), count)
    return Cavity(FIELDS[field] / 100, float(REYNOLDS_NUMBERS[number]))


def drive(cavity: Cavity, resolution: int, num_frames: int, interval: float) -> Iterator[Tensor]:
    """Set the lid in motion over fluid at rest in a uniform field, and yield frames ``(y, x, f)``, float64.

    The lid moves in the first frame already, so that all frames have the same walls; VERTEX-CFD's lid is at rest there.
    The field stays free of divergence to round-off if ``numpy.gradient`` with ``edge_order=2`` takes the derivatives.

    Raises:
        FloatingPointError: the solution stopped being finite.
    """
    largest_step = COURANT / ((resolution - 1) * (1 + abs(cavity.field)))  # for the lid plus an Alfven wave along it
    num_steps = max(1, math.ceil(interval / largest_step - 1e-6))
    check_steps(num_steps, 0.0, interval)
    flow = CavityFlow(cavity, resolution, interval / num_steps)
    yield flow.frame()
    for index in range(1, num_frames):
        for _ in range(num_steps):
            flow.step()
        frame = flow.frame()
        if not frame.isfinite().all():
            raise FloatingPointError(f"The solution stopped being finite before t = {index * interval:g}.")
        yield frame


class CavityFlow:
    """Steps one cavity.

    Attributes:
        stream: stream function at all nodes, ``(y, x)``; v = (stream_y, -stream_x).
        induced: vector potential at all nodes without that of the applied field, ``(y, x)``. Both vanish on the walls,
            and so does the current, since ``A_t`` and ``v.grad A`` vanish there.
    """

    def __init__(self, cavity: Cavity, resolution: int, time_step: float) -> None:
        transform = SineTransform(resolution - 2)
        self.cavity, self.time_step, self.spacing = cavity, time_step, transform.spacing
        self.stream = torch.zeros(resolution, resolution, dtype=torch.float64)
        self.induced = torch.zeros_like(self.stream)
        self._viscous = NoSlipDiffusion(transform, GAMMA * time_step / cavity.reynolds)
        self._resistive = ScalarDiffusion(transform, GAMMA * time_step / cavity.magnetic_reynolds)

    def frame(self) -> Tensor:
        """Return velocity and magnetic field at all nodes, ``(y, x, f)``. In the corners, the fluid rests."""
        velocity_x, velocity_y = (_with_walls(part) for part in self._curl(self.stream))
        velocity_x[-1, 1:-1] = 1
        along_y, along_x = torch.gradient(self.induced, spacing=self.spacing, edge_order=2)
        return torch.stack((velocity_x, velocity_y, self.cavity.field + along_y, -along_x), dim=-1)

    def vorticity(self) -> Tensor:
        """Return the vorticity at all nodes ``(y, x)``, on the walls by Thom's formula, in the corners zero."""
        vorticity = _with_walls(self._minus_laplacian(self.stream))
        factor = -2 / self.spacing**2
        vorticity[0, 1:-1] = factor * self.stream[1, 1:-1]
        vorticity[-1, 1:-1] = factor * self.stream[-2, 1:-1] - 2 / self.spacing  # the lid's speed is 1
        vorticity[1:-1, 0] = factor * self.stream[1:-1, 1]
        vorticity[1:-1, -1] = factor * self.stream[1:-1, -2]
        return vorticity

    def step(self) -> None:
        """Advance by one step of second order, diffusion implicit and the rest explicit."""
        start = _inside(self.vorticity()), _inside(self.induced)
        first = self._explicit_rates()
        diffused = self._diffuse(*(field + GAMMA * self.time_step * a for field, a in zip(start, first, strict=True)))
        second = self._explicit_rates()
        self._diffuse(
            *(
                field + self.time_step * (DELTA * a + (1 - DELTA) * b) + (1 - GAMMA) / GAMMA * change
                for field, a, b, change in zip(start, first, second, diffused, strict=True)
            )
        )

    def _diffuse(self, vorticity: Tensor, induced: Tensor) -> tuple[Tensor, Tensor]:
        """Diffuse fields at the interior nodes for GAMMA of a step, and return their changes."""
        source = vorticity.clone()
        source[-1] -= GAMMA * self.time_step / self.cavity.reynolds * 2 / self.spacing**3  # the lid in Thom's formula
        self.stream = _with_walls(self._viscous.solve(source))
        self.induced = _with_walls(self._resistive.solve(induced))
        return self._minus_laplacian(self.stream) - vorticity, _inside(self.induced) - induced

    def _explicit_rates(self) -> tuple[Tensor, Tensor]:
        """Return the rates of change of vorticity and induced potential by flow and field, at the interior nodes."""
        velocity, (field_x, field_y) = self._curl(self.stream), self._curl(self.induced)
        field_x = field_x + self.cavity.field
        current = _with_walls(self._minus_laplacian(self.induced))
        spin = self._along((field_x, field_y), current) - self._along(velocity, self.vorticity())
        return spin, velocity[0] * field_y - velocity[1] * field_x

    def _along(self, vector: tuple[Tensor, Tensor], field: Tensor) -> Tensor:
        """Return ``vector . grad field`` at the interior nodes."""
        along_y, minus_along_x = self._curl(field)
        return vector[1] * along_y - vector[0] * minus_along_x

    def _curl(self, potential: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(potential_y, -potential_x)`` at the interior nodes by central differences."""
        factor = 0.5 / self.spacing
        along_y, along_x = potential[2:, 1:-1] - potential[:-2, 1:-1], potential[1:-1, 2:] - potential[1:-1, :-2]
        return along_y * factor, along_x * -factor

    def _minus_laplacian(self, field: Tensor) -> Tensor:
        """Return minus the five-point Laplacian at the interior nodes."""
        neighbours = field[2:, 1:-1] + field[:-2, 1:-1] + field[1:-1, 2:] + field[1:-1, :-2]
        return (4 * _inside(field) - neighbours) / self.spacing**2


def _inside(field: Tensor) -> Tensor:
    return field[1:-1, 1:-1]


def _with_walls(field: Tensor) -> Tensor:
    """Add nodes on the walls, zero, around the interior ones."""
    return pad(field, (1, 1, 1, 1))


class SineTransform:
    """Sine modes, in which the five-point Laplacian of fields that vanish on the walls is diagonal.

    Attributes:
        num_nodes: interior nodes along each axis.
        spacing: distance between nodes; walls are one spacing beyond the outermost ones.
        modes: ``(node, mode)``, an involution.
        decay: minus the Laplacian's eigenvalues, ``(mode along y, mode along x)``.
    """

    def __init__(self, num_nodes: int) -> None:
        self.num_nodes, self.spacing = num_nodes, 1 / (num_nodes + 1)
        index = torch.arange(1, num_nodes + 1, dtype=torch.float64)
        self.modes = math.sqrt(2 * self.spacing) * (math.pi * self.spacing * index[:, None] * index).sin()
        along_axis = (2 / self.spacing * (0.5 * math.pi * self.spacing * index).sin()).square()
        self.decay = along_axis[:, None] + along_axis

    def to_modes(self, field: Tensor) -> Tensor:
        """Return the amplitudes of the modes of a field ``(y, x)``. Applied to amplitudes, it returns the field."""
        return self.modes @ field @ self.modes


class ScalarDiffusion:
    """Solves ``(1 - amount lap) field = source``, with no field on the walls."""

    def __init__(self, transform: SineTransform, amount: float) -> None:
        self._transform, self._factor = transform, 1 / (1 + amount * transform.decay)

    def solve(self, source: Tensor) -> Tensor:
        """Return the field."""
        to_modes = self._transform.to_modes
        return to_modes(to_modes(source) * self._factor)


class NoSlipDiffusion:
    """Solves ``(1 - amount lap) vorticity = source`` for the stream function of a fluid that sticks to the walls.

    The stream function vanishes on the walls, and vorticity is minus its five-point Laplacian. On a wall at rest, Thom's
    formula gives the vorticity from the node inside, ``-2 psi / h^2``; the term from the wall's speed is part of the
    source. Taken at the new time, as here, the formula does not limit the step.

    The formula couples the ``4 n`` nodes next to the walls. Without it, the problem would be diagonal in sine modes, so
    what remains is a dense system for these nodes (Woodbury's identity).
    """

    def __init__(self, transform: SineTransform, amount: float) -> None:
        self._transform, self._coupling = transform, 2 * amount / transform.spacing**4
        self._factor = 1 / (transform.decay + amount * transform.decay.square())
        self._ends = transform.modes[[0, -1]]  # (node next to a wall, mode)
        units = torch.eye(4 * transform.num_nodes, dtype=torch.float64)
        response = torch.stack([self._sides(self._factor * self._spread(unit)) for unit in units])
        self._inverse = torch.linalg.inv(torch.eye(len(response), dtype=torch.float64) + self._coupling * response)

    def solve(self, source: Tensor) -> Tensor:
        """Return the stream function."""
        source = self._transform.to_modes(source)
        sides = self._inverse @ self._sides(self._factor * source)
        return self._transform.to_modes(self._factor * (source - self._coupling * self._spread(sides)))

    def _sides(self, amplitudes: Tensor) -> Tensor:
        """Return the nodes next to the four walls ``(4 n)`` from modes; those in a corner are there twice."""
        modes = self._transform.modes
        return torch.cat(((self._ends @ amplitudes @ modes).flatten(), (self._ends @ amplitudes.T @ modes).flatten()))

    def _spread(self, sides: Tensor) -> Tensor:
        """Return the modes of a source ``(4 n)`` on the nodes next to the walls; the transpose of ``_sides``."""
        bottom_top, left_right = sides.reshape(2, 2, -1)
        return self._ends.T @ (bottom_top @ self._transform.modes) + (self._transform.modes @ left_right.T) @ self._ends


SYSTEM = "mhd_cavity"


def solve_cavities(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Drive the cavity of each seed, one after the other: matrix products of a batch would round differently.

    Returns:
        Velocity and magnetic field, each ``(t, y, x, 2)``, float32, of each seed.
    """
    resolution, found = ensemble.resolution, list[Trajectory]()
    for seed in seeds:
        frames = np.empty((ensemble.num_frames, resolution, resolution, 4), np.float32)  # (t, y, x, f)
        driven = drive(draw_cavity(seed), resolution, ensemble.num_frames, ensemble.settings["interval"])
        for index, frame in enumerate(driven):
            frames[index] = frame
        found.append({"velocity": frames[..., :2], "magnetic": frames[..., 2:]})
    return found


def config(ensemble: Ensemble, seed: int) -> str:
    """Return the YAML text that records the contents of a file; equal settings give equal text."""
    sizes = {"seed": seed, "resolution": ensemble.resolution, "num_frames": ensemble.num_frames}
    sim = sizes | {"interval": ensemble.settings["interval"]} | asdict(draw_cavity(seed))
    return yaml.safe_dump({"name": SYSTEM, "generator": "matey.simulate.mhd_cavity", "sim": sim}, sort_keys=False)


def write_trajectory(path: Path, ensemble: Ensemble, seed: int, trajectory: Trajectory) -> None:
    """Write one trajectory as HDF5.

    The root's attributes ``system``, ``Bx``, ``Re`` and ``Re_m`` describe the cavity; ``velocity`` and ``magnetic`` are
    ``(t, y, x, 2)``, the component along x first, and ``x``, ``y`` and ``t`` are the coordinates and times.
    """
    cavity = draw_cavity(seed)
    place = np.linspace(-HALF_WIDTH, HALF_WIDTH, ensemble.resolution)
    times = np.arange(ensemble.num_frames) * ensemble.settings["interval"]
    with h5py.File(path, "w") as file:
        file.attrs["system"], file.attrs["config"] = SYSTEM, config(ensemble, seed)
        file.attrs.update({"Bx": cavity.field, "Re": cavity.reynolds, "Re_m": cavity.magnetic_reynolds})
        for name, values in (*trajectory.items(), ("x", place), ("y", place), ("t", times)):
            file.create_dataset(name, data=values, dtype="f4")


def read_config(path: Path) -> str | None:
    """Return the result of ``config`` as kept in an HDF5 file, or None if another program wrote it."""
    with h5py.File(path) as file:
        return file.attrs.get("config")


LAYOUT = SingleFiles(lambda seed: f"{SYSTEM}_{seed:04d}.h5", config, read_config, write_trajectory)


def array_name(seed: int) -> str:
    """Return the name of the ``npy`` file of a seed's cavity; MATEY's reader expects 4 characters for Bx and 3 for Re_m."""
    cavity = draw_cavity(seed)
    return f"numpy_Bx_{cavity.field:.2f}_Re_{cavity.magnetic_reynolds:03.0f}.npy"


def _array_config(ensemble: Ensemble, seed: int) -> str:
    """Return the shape, which is all that an array records; its name states field and Reynolds number.

    Raises:
        ValueError: the interval between frames is not the one that readers assume.
    """
    if (interval := ensemble.settings["interval"]) != CAVITY_INTERVAL:
        raise ValueError(
            f"An array does not say its interval, which is taken to be {CAVITY_INTERVAL:g}: got {interval:g}; "
            "write HDF5 instead."
        )
    return str((ensemble.num_frames, ensemble.resolution, ensemble.resolution, 4))


def _write_array(path: Path, ensemble: Ensemble, seed: int, trajectory: Trajectory) -> None:
    """Write one trajectory as the bare array ``(t, y, x, 4)``, float32."""
    np.save(path, np.concatenate(list(trajectory.values()), axis=-1).astype("f4"))


ARRAYS = SingleFiles(
    array_name, _array_config, lambda path: str(np.load(path, mmap_mode="r", allow_pickle=False).shape), _write_array
)

MHD_CAVITY = System.published(SYSTEM, solve_cavities, LAYOUT)
