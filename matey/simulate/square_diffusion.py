"""Implicit diffusion on the interior nodes of a unit square between walls, by sine transforms.

Two problems of ``mhd_cavity.py``: a scalar that vanishes on the walls, and a stream function whose flow does not slip
along them. Both operators are built once, for a given length of step. Fields hold interior nodes only, ``(y, x)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
