"""The summary at the end of forecasts: their error where the truth is known, and the drift of the fields' means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from matey.data.trajectories import BadValuesError, Cells
from matey.evaluate.forecasts.formats import ForecastFile
from matey.evaluate.forecasts.request import ForecastRequest
from matey.metrics import NRMSE_EPSILON, error_text
from matey.text_table import text_table

AT_ONCE = 2**21
"""Number of cells that are read at once, unless a single layer has more."""

Read = Callable[[int, Cells], np.ndarray]
"""Reads a frame ``(f, z, y, x)`` at a step after the last known one, in a box of cells."""


def closing_table(request: ForecastRequest, file: ForecastFile) -> str:
    """Return a table with a line for each field and means over the trajectories.

    The means of a field over the domain are those of the last known frame and of the last forecast frame; for a conserved
    quantity in a closed domain they agree. The drift is their difference over the root mean square of the known frame.
    """
    known, last, drifts, errors, unknown = [], [], [], [], []
    counts: set[int] = set()  # of the true frames at which errors are taken
    for place, number in enumerate(request.trajectories):

        def true(step: int, cells: Cells, number: int = number) -> np.ndarray:
            frame = request.last_known + step
            return np.asarray(request.data.read(number, frame, frame + 1, cells)[0])

        def made(step: int, cells: Cells, place: int = place) -> np.ndarray:
            return np.asarray(file.read(place, place + 1, step - 1, step, cells)[0, 0])

        def off(step: int, cells: Cells, true: Read = true, made: Read = made) -> np.ndarray:
            target = true(step, cells)
            return np.concatenate([made(step, cells) - target, target])

        (before, size), (after, _) = _means(request, true, 0), _means(request, made, request.num_steps)
        known.append(before)
        last.append(after)
        drifts.append((after - before) / np.maximum(np.sqrt(size), 1e-30))
        if num_true := request.num_true(number):
            try:
                missed, target = np.split(np.sqrt(_means(request, off, num_true)[1]), 2)
            except BadValuesError as bad:
                unknown.append(f"No error of trajectory {number}: {bad}")
                continue
            counts.add(num_true)
            errors.append(missed / (target + NRMSE_EPSILON))
    most = f" to {max(counts)}" if len(counts) > 1 else ""
    error_head = [f"NRMSE at step {min(counts)}{most}"] if counts else []
    head, rows = ["mean of the domain", "known", f"step {request.num_steps}", "drift", *error_head], []
    for index, name in enumerate(request.data.fields):
        before, after, drift = (np.mean(values, axis=0)[index] for values in (known, last, drifts))
        error = [error_text(np.mean(errors, axis=0)[index])] if errors else []
        rows.append([name, f"{before:.5g}", f"{after:.5g}", f"{drift:+.2%}", *error])
    return "\n".join([text_table(head, rows), *unknown])


def _means(request: ForecastRequest, read: Read, step: int) -> np.ndarray:
    """Return the means of fields and of their squares over all cells, ``(2, f)`` in float64, read a few layers at a time."""
    grid = request.first.grid
    axis, num_cells = (0 if grid[0] > 1 else 1), math.prod(grid)
    layers = max(1, AT_ONCE * grid[axis] // num_cells)
    sums: list[np.ndarray] = []
    for start in range(0, grid[axis], layers):
        box = [slice(0, length) for length in grid]
        box[axis] = slice(start, min(start + layers, grid[axis]))
        z, y, x = box
        values = read(step, (z, y, x)).astype(np.float64)
        sums.append(np.stack([values.sum(axis=(1, 2, 3)), np.square(values).sum(axis=(1, 2, 3))]))
    return np.asarray(np.sum(sums, axis=0) / num_cells)
