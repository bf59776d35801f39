"""The error of the forecast that nothing changes, which ``train.loss: balanced`` divides by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from matey.data.boxes import read_box
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.parallel.collectives import on_one_thread, shared_out
from matey.tokens.patches import extend
from matey.train.losses import Loss, axes_of, halo_of

AT_ONCE = 2**28
"""Bytes of a frame that are read at once; a larger frame is read a few layers at a time."""


def persistence_by_system(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], history: int, loss: Loss
) -> dict[str, dict[int, float]]:
    """Return persistence's mean error on the windows of each system and lead time.

    Windows are divided among the ranks; only the last frame of the history and the target are read.
    """
    pairs = [replace(window, start=window.start + history - 1) for window in windows]
    with on_one_thread():
        found = shared_out(lambda pair: _persistence(sets, pair, loss), pairs)
    errors: dict[str, dict[int, list[float]]] = {}
    for window, error in zip(windows, found, strict=True):
        errors.setdefault(sets[window.set_index].system, {}).setdefault(window.lead, []).append(error)
    return {
        system: {lead: sum(values) / len(values) for lead, values in sorted(of_system.items())}
        for system, of_system in errors.items()
    }


def _persistence(sets: Sequence[TrajectorySet], pair: Window, loss: Loss) -> float:
    source = sets[pair.set_index]
    if 4 * len(source.fields) * math.prod(source.trajectories[pair.trajectory].grid) > AT_ONCE:
        return _in_slabs(source, pair, loss)
    (batch,) = read_windows(sets, [pair], num_frames=1)
    return loss.of_frame(batch.last, batch).mean().item()


def _in_slabs(source: TrajectorySet, pair: Window, loss: Loss) -> float:
    """Return the error from sums over layers of the slowest axis, a few at a time."""
    grid = source.trajectories[pair.trajectory].grid
    halo = halo_of(loss.halo, grid)
    axis = 0 if grid[0] > 1 else 1
    layers = max(AT_ONCE // (4 * len(source.fields) * math.prod(grid[axis + 1 :])), 1)
    sums = torch.zeros(2, 1, len(source.fields), dtype=torch.float64)
    for first in range(0, grid[axis], layers):
        slab = slice(first, min(first + layers, grid[axis]))
        last, target = (
            _slab(source, pair.trajectory, frame, axis, slab, halo) for frame in (pair.start, pair.start + pair.lead)
        )
        for total, values in zip(sums, (last.sub_(target), target), strict=True):
            total += loss.squares(values, axes_of(halo)).sum(dim=(2, 3, 4), dtype=torch.float64)
    if not sums[0].any():
        return 0.0
    return loss.relative(sums[0], sums[1], math.prod(grid)).mean().item()


def _slab(source: TrajectorySet, trajectory: int, frame: int, axis: int, slab: slice, halo: Sequence[int]) -> Tensor:
    """Read layers of a frame, ``(1, f, z, y, x)``, with the halo around them that `Loss.sum_of` would add."""
    about = source.trajectories[trajectory]
    sides, wraps = [slice(0, size) for size in about.grid], [*about.periodic]
    before, ends = [*halo], [size + reach for size, reach in zip(about.grid, halo, strict=True)]
    first, end = slab.start - halo[axis], slab.stop + halo[axis]
    sides[axis] = slice(first, end) if wraps[axis] else slice(max(first, 0), min(end, about.grid[axis]))
    before[axis], ends[axis] = sides[axis].start - first, end - sides[axis].start
    wraps[axis] = False  # the layers on the other side have been read
    z, y, x = sides
    values = torch.from_numpy(read_box(source, trajectory, frame, frame + 1, (z, y, x)))
    return extend(values, ends, wraps, before)
