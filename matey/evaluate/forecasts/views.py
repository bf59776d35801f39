"""Reads back what a file of forecasts holds: pictures of one trajectory, series at single cells, and a table at the end."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from matey.data import DataError
from matey.data.reading import read_history
from matey.data.trajectories import Cells
from matey.evaluate.forecasts.formats import ForecastFile
from matey.evaluate.forecasts.request import ForecastRequest
from matey.evaluate.rollout import View
from matey.metrics import CELLS, NRMSE_EPSILON, error_text
from matey.model.matey import MateyModel
from matey.text_table import text_table
from matey.tokens.tokenize import tokenize

Cell = tuple[int, int, int]
"""Place ``z, y, x`` of a cell of the grid, counted from 0."""


@dataclass(frozen=True)
class ProbeSeries:
    """All fields of one trajectory at one cell, from the first known frame on.

    Attributes:
        trajectory: number of the trajectory in the data set.
        cell: the cell.
        steps: ``(t,)``, number of snapshots after the last known frame; frames at 0 and below are known.
        times: ``(t,)``, the data's times or, if it has none, times since the trajectory began, in the data's units.
        forecast: ``(t, f)``, the forecast; NaN at known frames.
        truth: ``(t, f)``, known frames and truth; NaN beyond the end of the trajectory.
    """

    trajectory: int
    cell: Cell
    steps: np.ndarray
    times: np.ndarray
    forecast: np.ndarray
    truth: np.ndarray


def views(
    model: MateyModel, request: ForecastRequest, file: ForecastFile, place: int, field: int, steps: Sequence[int]
) -> Iterator[View]:
    """Yield one field of one trajectory at chosen steps.

    Args:
        model: the model, which chooses the tokens.
        request: the request that the file was made for.
        file: the complete file.
        place: place of the trajectory in the request.
        field: index of the field along axis ``f``.
        steps: the steps, counted from 1.
    """
    number, num_frames = request.trajectories[place], request.num_frames
    known = read_history(request.data, [number], request.start, num_frames)
    for step, time in zip(steps, request.times(request.last_known + np.array(steps)), strict=True):
        recent = torch.from_numpy(file.read(place, place + 1, max(0, step - num_frames), step))  # (b, t, f, z, y, x)
        history = torch.cat([known.history, recent], dim=1)[:, -num_frames:]
        layout = tokenize([replace(known, history=history)], model.config.patches, model.config.refinement).layout
        truth = request.truth(number, step)
        yield View(
            step=step,
            time=float(time),
            forecast=history[0, -1, field],
            truth=None if truth is None else torch.from_numpy(truth[field]),
            layout=layout,
        )


def probe(request: ForecastRequest, file: ForecastFile, cells: Sequence[Cell]) -> list[ProbeSeries]:
    """Read forecast and truth at some cells, of every trajectory and at every step."""
    found = []
    steps = np.arange(1 - request.num_frames, request.num_steps + 1)
    times = request.times(request.last_known + steps)
    for place, number in enumerate(request.trajectories):
        shape = len(steps), len(cells), len(request.data.fields)
        forecast, truth = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        for row, step in enumerate(steps.tolist()):
            for column, cell in enumerate(cells):
                if (true := request.truth(number, step, _box(cell))) is not None:
                    truth[row, column] = true[:, 0, 0, 0]
            if step > 0:
                there = (file.read(place, place + 1, step - 1, step, _box(cell)) for cell in cells)
                forecast[row] = [values[0, 0, :, 0, 0, 0] for values in there]
        found += [
            ProbeSeries(number, cell, steps, times, forecast[:, index], truth[:, index])
            for index, cell in enumerate(cells)
        ]
    return found


def cells_of(request: ForecastRequest, probes: Sequence[tuple[int, ...]]) -> list[Cell]:
    """Return the cells of probes, each once; a probe is ``y, x`` in the middle plane or ``z, y, x``.

    Raises:
        DataError: a probe lies outside the grid.
    """
    grid, cells = request.first.grid, []
    for probe in probes:
        z, y, x = probe if len(probe) == 3 else (grid[0] // 2, *probe)
        if not all(0 <= place < size for place, size in zip((z, y, x), grid, strict=True)):
            raise DataError(
                f"The probe {','.join(map(str, probe))} is no cell: the grid has z, y, x = {', '.join(map(str, grid))} "
                "cells, counted from 0."
            )
        cells.append((z, y, x))
    return list(dict.fromkeys(cells))


def write_probes(path: Path, request: ForecastRequest, series: Sequence[ProbeSeries]) -> None:
    """Write series as CSV, one line per trajectory, cell and step; unknown values are empty.

    Raises:
        OSError: the file cannot be written.
    """
    fields = [name for field in request.data.fields for name in (field, f"{field}_truth")]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trajectory", "z", "y", "x", "step", "time", *fields])
        for one in series:
            for row, step in enumerate(one.steps.tolist()):
                pairs = zip(one.forecast[row].tolist(), one.truth[row].tolist(), strict=True)
                values = ["" if np.isnan(value) else f"{value:.9g}" for pair in pairs for value in pair]
                table.writerow([one.trajectory, *one.cell, step, float(one.times[row]), *values])


def _box(cell: Cell) -> Cells:
    """Return the box of one cell."""
    z, y, x = (slice(place, place + 1) for place in cell)
    return z, y, x


def closing_table(request: ForecastRequest, file: ForecastFile) -> str:
    """Return a table with a line for each field and means over the trajectories.

    The means of a field over the domain are those of the last known frame and of the last forecast frame; for a conserved
    quantity in a closed domain they agree. The drift is their difference over the root mean square of the known frame. Errors
    are those of the last frames with a truth, which a trajectory with NaN or infinity there does not have.
    """
    known, last, drifts, errors = [], [], [], []
    counts: set[int] = set()  # of the true frames at which errors are taken
    for place, number in enumerate(request.trajectories):
        before = request.data.read(number, request.last_known, request.last_known + 1)[0].astype(np.float64)
        after = file.read(place, place + 1, request.num_steps - 1, request.num_steps)[0, 0].astype(np.float64)
        known.append(before.mean(axis=CELLS, where=~np.isnan(before)))
        last.append(after.mean(axis=CELLS, where=~np.isnan(before)))
        drifts.append((last[-1] - known[-1]) / np.maximum(_size(before), 1e-30))
        num_true = request.num_true(number)
        if num_true and (target := request.truth(number, num_true)) is not None:
            missed = file.read(place, place + 1, num_true - 1, num_true)[0, 0] - target
            counts.add(num_true)
            errors.append(_size(missed, target) / (_size(target) + NRMSE_EPSILON))
    most = f" to {max(counts)}" if len(counts) > 1 else ""
    error_head = [f"NRMSE at step {min(counts)}{most}"] if counts else []
    head, rows = ["mean of the domain", "known", f"step {request.num_steps}", "drift", *error_head], []
    for index, name in enumerate(request.data.fields):
        start, end, drift = (np.mean(values, axis=0)[index] for values in (known, last, drifts))
        error = [error_text(np.mean(errors, axis=0)[index])] if errors else []
        rows.append([name, f"{start:.5g}", f"{end:.5g}", f"{drift:+.2%}", *error])
    return text_table(head, rows)


def _size(frame: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """Return the root mean square ``(f,)`` of a frame ``(f, z, y, x)`` over the cells where it, or the truth, holds data."""
    holds = ~np.isnan(frame if truth is None else truth)
    return np.asarray(np.sqrt(np.square(frame, dtype=np.float64).mean(axis=CELLS, where=holds)))
