"""The error on windows never trained on, shared out over the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window, read_windows
from matey.evaluate.metrics import nrmse
from matey.parallel.engine import Engine
from matey.parallel.topology import Topology
from matey.train.loss import nrmse_of
from matey.train.tally import Tally


@torch.no_grad()
def validate(
    engine: Engine,
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    history: int,
    micro_batch: int,
    topology: Topology,
    trained: Sequence[str],
) -> dict[str, Any]:
    """Return ``valid_nrmse`` (mean over the systems ``trained``), the same by system, and persistence's by system.

    Micro-batches go round the sequence groups. All ranks call the model equally often, as ZeRO needs: where the count does not
    come out even, a group repeats the first one and does not count it.
    """
    chunks = [windows[start : start + micro_batch] for start in range(0, len(windows), micro_batch)]
    systems = list(dict.fromkeys(data.system for data in sets))
    model_error, persistence = Tally(systems, engine.device), Tally(systems, engine.device)
    engine.eval()
    for first in range(0, len(chunks), topology.num_data_ranks):
        mine = first + topology.data_rank
        batches = read_windows(sets, chunks[mine if mine < len(chunks) else 0], history)
        forecasts = engine([batch.to(engine.device) for batch in batches])
        errors = nrmse_of(forecasts, engine.module.seam)
        for forecast, error in zip(forecasts, errors, strict=True) if mine < len(chunks) else ():
            batch = forecast.batch
            model_error.add_batch(batch, error.mean(dim=1))
            persistence.add_batch(batch, nrmse(batch.last, batch.target).mean(dim=1))
    engine.train()
    totals = model_error.reduce()
    return {
        "valid_nrmse": totals.mean_over(trained),
        "valid_nrmse_by_system": totals.by_system,
        "valid_persistence_by_system": persistence.reduce().by_system,
    }


def persistence_by_system(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], history: int
) -> dict[str, dict[int, float]]:
    """Return persistence's mean NRMSE on the windows of each system and lead; the same on every rank, as all read all."""
    errors: dict[str, dict[int, list[float]]] = {}
    for window in windows:
        (batch,) = read_windows(sets, [window], history)
        of_lead = errors.setdefault(batch.system, {}).setdefault(window.lead, [])
        of_lead.append(nrmse(batch.last, batch.target).mean().item())
    return {
        system: {lead: sum(values) / len(values) for lead, values in sorted(of_system.items())}
        for system, of_system in errors.items()
    }
