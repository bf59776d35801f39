"""Measures what each rank of a sequence group reads, sends and holds in a step from a file to gradients, fields in parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import psutil
import torch
from torch import Tensor

from matey.benchmark.machine import memory
from matey.benchmark.speed_cases import Case
from matey.config import DataDescription
from matey.data.described import DataFile, DescribedFiles
from matey.data.windows import Window
from matey.evaluate.evaluation import Protocol, score, tasks_of
from matey.evaluate.forecasts.series import forecast
from matey.evaluate.held_out import HeldOut
from matey.model.matey import MateyModel
from matey.model.prepare import Prepared
from matey.nested import tensors_in
from matey.parallel import collectives
from matey.parallel.exchange import HostExchange
from matey.train.validation import read_and_prepare

FILE, ARRAY, STEPS = "fields.h5", "values", 2


def from_file_to_gradients(
    case: Case, model: MateyModel, loss_of: Callable[[MateyModel, Prepared], Tensor]
) -> dict[str, int]:
    """Take a step on fields in a file, forecast from them into another file, score forecasts, and return the costs.

    All ranks must call.

    Returns:
        The peak of memory above that in use before, the bytes read from files, the bytes sent to other ranks before the
        step, the bytes of the layout (of all tokens, and of own ones), and the peaks of memory in the forecast and in
        the evaluation (at a lead and in a rollout, one step each).
    """
    with in_a_file(case) as (folder, data):
        before, bytes_before = memory("cpu"), psutil.Process().io_counters().read_chars
        exchange = model.sequence_group.exchange
        sent_before = exchange.num_bytes if isinstance(exchange, HostExchange) else 0
        prepared = read_and_prepare(
            model, [data], [Window(0, sample, 0, 1) for sample in range(case.batch)], case.frames
        )
        found = {"bytes_read": psutil.Process().io_counters().read_chars - bytes_before}
        sent = exchange.num_bytes - sent_before if isinstance(exchange, HostExchange) else 0
        found["layout_bytes"] = _bytes_behind(prepared.tokens)
        loss_of(model, prepared).backward()
        found |= {"exchanged_bytes": sent, "peak_memory_bytes": memory("cpu", peak=True) - before}
        model.zero_grad(set_to_none=False)
        del prepared
        collectives.barrier()
        before = memory("cpu")
        forecast(model, data, steps=STEPS, history=case.frames, batch_size=case.batch).write(folder / "forecast.h5")
        found["forecast_memory_bytes"] = memory("cpu", peak=True) - before
        collectives.barrier()
        before = memory("cpu")
        held_out = HeldOut((data,), (tuple(range(case.batch)),), case.frames)
        protocol = Protocol(leads=(1,), rollout_steps=1, batch_size=case.batch)
        score(model, held_out, protocol, tasks_of(held_out, protocol))
        found["evaluation_memory_bytes"] = memory("cpu", peak=True) - before
    return found


@contextmanager
def in_a_file(case: Case, axes: str = "zyx", **stored: object) -> Iterator[tuple[Path, DescribedFiles]]:
    """Write a case into a file of a temporary folder, see `write`; yield it and the opened data set. All ranks must call."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(collectives.from_rank_zero(own))
        if collectives.rank() == 0:
            write(case, folder, axes, **stored)
        collectives.barrier()
        data = opened(case, folder, axes)
        data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
        yield folder, data
        collectives.barrier()


def _bytes_behind(tokens: object) -> int:
    """Return the bytes of the tensors of all tokens, of which ``tokens`` holds views."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(tokens))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def write(case: Case, folder: Path, axes: str = "zyx", **stored: object) -> None:
    """Write the histories and targets of a case as one array ``(b, t, f, *axes)``, ``stored`` as h5py is told."""
    batch, order = case.make_batch(), [3 + "zyx".index(axis) for axis in axes]
    with h5py.File(folder / FILE, "w") as file:
        frames = torch.cat([batch.history, batch.known_target[:, None]], dim=1)
        file.create_dataset(ARRAY, data=frames.permute(0, 1, 2, *order).cpu().numpy(), **stored)


def opened(case: Case, folder: Path, axes: str = "zyx") -> DescribedFiles:
    """Open the file that `write` has written as a data set."""
    description = DataDescription.model_validate(
        {
            "system": "benchmark",
            "files": FILE,
            "axes": ["trajectory", "time", "component", *axes],
            "fields": {f"field_{number}": {"array": ARRAY, "index": number} for number in range(case.fields)},
            "spacing": dict.fromkeys(axes, 1.0),
            "time_step": 1.0,
            "boundary": dict.fromkeys(axes, "open"),
        }
    )
    return DescribedFiles(description, [DataFile((folder / FILE,))])
