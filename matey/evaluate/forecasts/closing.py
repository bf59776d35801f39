"""How forecasts end: their error where there is truth, and how far the means of the fields have drifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from matey.evaluate.forecasts.formats import ForecastFile
from matey.evaluate.forecasts.request import ForecastRequest
from matey.metrics import nrmse


def closing_table(request: ForecastRequest, file: ForecastFile) -> str:
    """Return a line for each field, with means over the trajectories.

    The mean of a field over the domain is that of the last known frame and of the last that is forecast; of a conserved
    quantity in a closed domain it stays. The drift is their difference over the root mean square of the known frame.
    """
    known, last, drifts, errors = [], [], [], []
    for place, number in enumerate(request.trajectories):
        (first,) = request.data.read(number, request.last_known, request.last_known + 1)
        end = file.read(place, place + 1, request.num_steps - 1, request.num_steps)[0, 0]
        known.append(_mean(first))
        last.append(_mean(end))
        drifts.append((last[-1] - known[-1]) / np.maximum(np.sqrt(_mean(np.square(first))), 1e-30))
        num_true = request.num_true(number)
        truth = request.truth(number, num_true) if num_true else None
        if truth is not None:
            frame = file.read(place, place + 1, num_true - 1, num_true)[0, 0]
            errors.append(nrmse(torch.from_numpy(frame)[None], torch.from_numpy(truth)[None])[0].numpy())
    counts = {request.num_true(number) for number in request.trajectories} - {0}
    rows = [["mean of the domain", "known", f"step {request.num_steps}", "drift", *_error_head(counts)]]
    for index, name in enumerate(request.data.fields):
        before, after, drift = (np.mean(values, axis=0)[index] for values in (known, last, drifts))
        error = [f"{np.mean(errors, axis=0)[index]:.4f}"] if errors else []
        rows.append([name, f"{before:.5g}", f"{after:.5g}", f"{drift:+.2%}", *error])
    return _aligned(rows)


def _error_head(counts: set[int]) -> list[str]:
    if not counts:
        return []
    return [f"NRMSE at step {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "")]


def _mean(frame: np.ndarray) -> np.ndarray:
    """Return the mean of each field of a frame ``(f, z, y, x)``, in float64."""
    return np.asarray(frame.mean(axis=(1, 2, 3), dtype=np.float64))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    )
