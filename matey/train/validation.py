"""The error on windows that are never trained on, which are divided among the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

import torch

from matey.data.reading import read_parts, read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.model.boxes import share_of
from matey.model.matey import MateyModel
from matey.model.prepare import Prepared, prepare, prepare_parts
from matey.parallel.collectives import on_any_rank
from matey.parallel.package import Engine
from matey.parallel.topology import Topology
from matey.process.signals import asked_to_leave
from matey.train.ahead import on_device
from matey.train.loop import Tally
from matey.train.loss import errors_of


@torch.no_grad()
def validate(
    engine: Engine,
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    history: int,
    micro_batch: int,
    topology: Topology,
    num_trained: int,
) -> dict[str, Any] | None:
    """Return ``valid_nrmse`` (mean over the data sets trained on), the same by data set, and persistence's by data set.

    The result is None if a signal asked the run to leave before the last micro-batch. The sequence groups take micro-batches
    in turn. All ranks call the model equally often, as ZeRO needs: a group that gets none in the last round repeats the first
    micro-batch, and does not count it.

    Args:
        engine: the model.
        sets: the data sets that are trained on, then those only validated on.
        windows: the windows of all sets, those of one set in a row.
        history: number of frames of history.
        micro_batch: number of samples predicted together, all of one data set.
        topology: this rank's place.
        num_trained: number of the sets that are trained on.
    """
    names = set_names(sets)
    chunks = [
        of_set[start : start + micro_batch]
        for of_set in (list(group) for _, group in groupby(windows, key=lambda window: window.set_index))
        for start in range(0, len(of_set), micro_batch)
    ]
    model_error, persistence = Tally(names, engine.device), Tally(names, engine.device)
    engine.eval()
    rounds = range(topology.data_rank, len(chunks) + topology.data_rank, topology.num_data_ranks)
    of_rounds = [chunks[mine if mine < len(chunks) else 0] for mine in rounds]
    stream = on_device((read_and_prepare(engine.module, sets, chunk, history) for chunk in of_rounds), engine.device)
    for mine, chunk in zip(rounds, of_rounds, strict=True):
        if on_any_rank(asked_to_leave()):
            engine.train()
            return None
        prepared = cast(Prepared, next(stream))
        forecasts = engine(prepared)
        last: list[torch.Tensor] = [held.base for held in prepared.held]
        same = [
            forecast._replace(base=base, decoded=torch.zeros_like(forecast.decoded))
            for forecast, base in zip(forecasts, last, strict=True)
        ]
        for tally, guesses in ((model_error, forecasts), (persistence, same)):
            errors = errors_of(guesses, engine.module.sequence_group)
            for error in errors if mine < len(chunks) else ():
                tally.add_errors(names[chunk[0].set_index], error.mean(dim=1))
        del prepared, forecasts, last, same, guesses  # before the next one comes, which may take much memory
    engine.train()
    totals = model_error.reduce().read()
    return {
        "valid_nrmse": totals.mean_over(names[:num_trained]),
        "valid_nrmse_by_system": totals.by_system,
        "valid_persistence_by_system": persistence.reduce().read().by_system,
    }


def read_and_prepare(
    model: MateyModel, sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int
) -> Prepared:
    """Read windows and prepare them on the host; in a group of ranks all must call, and each reads its part."""
    group = model.sequence_group
    share = share_of(model.config, group.ranks)
    if share is None:
        return prepare(read_windows(sets, windows, num_frames), model.config, group.ranks)
    parts = read_parts(sets, windows, num_frames, share)
    return prepare_parts(parts, model.config, group.ranks, group.exchange)


def set_names(sets: Sequence[TrajectorySet]) -> list[str]:
    """Return a name for each data set: its system, with the set's number and folder if the system came before."""
    names: list[str] = []
    for number, data in enumerate(sets, start=1):
        more = f" ({number}: {data.sources[0].parent})" if data.system in names else ""
        names.append(data.system + more)
    return names
