"""Makes forecasts from Python: an iterator over frames, an xarray Dataset, or a file; also exported as ``matey.forecast``.

What a file holds is read back for pictures of one trajectory, series at single cells, and a table at the end.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from matey.checkpoints.trained import Trained, load_trained
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.reading import read_history, read_history_part
from matey.data.trajectories import lacking_note
from matey.evaluate.forecasts.formats import FORMATS, ForecastFile, FormatError, check_path, errors_of_disks
from matey.evaluate.forecasts.request import ForecastRequest, contents_of, origin_of
from matey.evaluate.held_out import HeldOut, beyond_training, check_fit
from matey.evaluate.histories import Boxes, Histories, Whole
from matey.evaluate.rollout import Rollout, View, rollout
from matey.fields import Box
from matey.metrics import CELLS, error_text, nrmse, vrmse
from matey.mistakes import regular
from matey.model.boxes import share_of
from matey.model.matey import MateyModel, quiet
from matey.model.sequence_group import SequenceGroup
from matey.model.transfer import weights_fingerprint
from matey.text_table import text_table
from matey.tokens.tokenize import tokenize
from matey.train.folder import FileLock

if TYPE_CHECKING:
    import xarray

STRETCH_BYTES = 2**20  # bytes written at a time for one field of one trajectory


@dataclass(frozen=True)
class ForecastFrame:
    """One snapshot of a forecast, for a batch of trajectories.

    Attributes:
        first: place of the batch's first trajectory in the request; the others follow it.
        trajectories: numbers of the trajectories in the data set.
        step: number of snapshots after the last known frame, at least 1.
        time: time since the trajectories began, in the units of the data set.
        values: predicted fields ``(b, f, z, y, x)`` in physical units, on the model's device.
    """

    first: int
    trajectories: tuple[int, ...]
    step: int
    time: float
    values: Tensor = field(repr=False)


@dataclass(frozen=True, repr=False)
class Forecasts:
    """Forecasts of some trajectories by one model, computed only on demand.

    Attributes:
        model: the model, on the device to compute on.
        request: the trajectories, the frame they start from, and the snapshots to forecast.
        batch_size: number of trajectories forecast together.
        facts: attributes of a file that describe its origin.
        found_by: file, folder or glob by which the user named the data.
        note: sentences on what the model takes and the data lacks, and on data unlike that of its training; perhaps none.
    """

    model: MateyModel
    request: ForecastRequest
    batch_size: int = 16
    facts: Mapping[str, str] = field(default_factory=dict)
    found_by: str | Path | None = None
    note: str = ""

    @property
    def contents(self) -> xarray.Dataset:
        """Axes, coordinates and attributes of the forecasts as a data set."""
        return contents_of(self.request, self.facts)

    def __iter__(self) -> Iterator[ForecastFrame]:
        """Forecast, and yield all snapshots of one batch of trajectories, then those of the next batch."""
        asked = self.request
        for first in range(0, len(asked.trajectories), self.batch_size):
            numbers = asked.trajectories[first : first + self.batch_size]
            known = read_history(asked.data, numbers, asked.start, asked.num_frames, asked.num_steps)
            frames = rollout(self.model, known, asked.num_steps, asked.lead, conserve=asked.conserve)
            for step, values in enumerate(frames, start=1):
                yield ForecastFrame(first, numbers, step, (asked.last_known + step) * asked.first.time_step, values)

    def to_xarray(self) -> xarray.Dataset:
        """Forecast, and return all frames in memory: dimensions ``trajectory, time, [z,] y, x``, one variable per field.

        Raises:
            FormatError: xarray is not installed.
        """
        contents, asked = self.contents, self.request
        from xarray import decode_cf

        shape = len(contents.data_vars), len(asked.trajectories), asked.num_steps, *asked.first.grid
        values = np.empty(shape, dtype=np.float32)  # (f, b, t, z, y, x)
        for frame in self:
            of_batch = slice(frame.first, frame.first + len(frame.trajectories))
            values[:, of_batch, frame.step - 1] = frame.values.float().cpu().numpy().swapaxes(0, 1)
        for (name, empty), of_field in zip(contents.data_vars.items(), values, strict=True):
            contents[name] = empty.copy(data=of_field.reshape(empty.shape))
        return decode_cf(contents)

    def write(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        on_frames: Callable[[int], object] = lambda num_frames: None,
    ) -> None:
        """Forecast into a file, a stretch of frames at a time; an unfinished file of the same forecast is continued.

        Args:
            path: the file to make: ``.nc``, ``.zarr``, ``.h5`` or ``.hdf5``, see `matey.evaluate.forecasts.formats`.
            overwrite: whether the file may replace another.
            on_frames: function called with the number of frames just made, or found complete, for a progress bar.

        All ranks of the model's sequence group must call, and reach the file; each writes its part.

        Raises:
            FormatError: the file exists already, the suffix names no format, or a package is missing.
            LockedError: another process makes this file.
            DataError: see ``TrajectorySet.read``.
            OSError: the file cannot be written.
        """
        path = Path(path)
        self._check(path, overwrite)
        lock = FileLock(path)
        try:
            if self.model.sequence_group.ranks.place == 0:
                lock.take()
                self._check(path, overwrite)  # once more, now that no other process can make it
            self._write(path, lock, on_frames)
        finally:
            lock.release()

    def _check(self, path: Path, overwrite: bool) -> None:
        """Raise FormatError if the file must not be made."""
        check_path(path, overwrite=overwrite, inputs=self.request.data.inputs)
        if self.found_by and path.resolve().is_relative_to(Path(self.found_by).expanduser().resolve()):
            raise FormatError(
                f"{path} would be taken for data, since it lies in {self.found_by}; choose another folder."
            )

    def _write(self, path: Path, lock: FileLock, on_frames: Callable[[int], object]) -> None:
        """Forecast into a file whose lock the first rank holds."""
        asked, group, num_trajectories = self.request, self.model.sequence_group, len(self.request.trajectories)
        is_first = group.ranks.place == 0
        progress = Progress(path, self._digest(path.suffix) if is_first else "")
        state = torch.zeros(num_trajectories, 1 + len(asked.data.fields), dtype=torch.float64)  # steps, largest changes
        if is_first:
            if (recorded := progress.state()) is not None:
                state = recorded
            else:
                progress.clear()
                with errors_of_disks():
                    FORMATS[path.suffix].make(progress.unfinished, self.contents)
                progress.note(state)
        state = told_by_first(state.flatten(), group).view(state.shape)
        on_frames(int(state[:, 0].sum()))
        for number, of_batch in enumerate(state.split(self.batch_size)):  # views, which are kept up to date
            if int(of_batch[0, 0]) == asked.num_steps:
                continue
            try:
                for num_new in self._write_batch(progress, lock, number * self.batch_size, of_batch):
                    if is_first:
                        progress.note(state)
                    on_frames(num_new * len(of_batch))
            except DataError:
                if is_first and not state[:, 0].any():
                    progress.clear()
                raise
        if is_first:
            lock.check()
            progress.finish()

    def _write_batch(self, progress: Progress, lock: FileLock, first: int, state: Tensor) -> Iterator[int]:
        """Forecast some trajectories together, from the steps in ``state`` on; yield the number of frames just written.

        A stretch of frames ends with a group of frames from the same history, so that the rest is the same as without a break.
        Ranks write one after another, since HDF5 has one writer and a chunk of Zarr may hold cells of several.

        Args:
            progress: the files.
            lock: the lock of the file, which the first rank holds.
            first: place of the first trajectory in the request.
            state: completed steps and largest changes ``(b, 1 + f)``, which are kept up to date.
        """
        asked, group, contents = self.request, self.model.sequence_group, self.contents
        place = group.ranks.place
        open_file = partial(FORMATS[progress.path.suffix].open_file, progress.unfinished, contents)
        done, step_bytes = int(state[0, 0]), 4 * asked.lead * math.prod(asked.first.grid)
        together = asked.lead * max(1, STRETCH_BYTES // step_bytes)
        rolled = Rollout(self._histories(first, first + len(state)), asked.conserve)
        boxes = boxes_of_ranks(rolled.histories, group.size)
        if done:
            held = boxes[place if isinstance(rolled.histories, Boxes) else 0]
            with closing(open_file("r")) as file:
                box = ((first + at, first + at + 1, max(0, done - asked.num_frames), done, cells) for at, cells in held)
                known = [torch.from_numpy(file.read(*each)[0]) for each in box]
            rolled.go_on(torch.stack(known) if known else rolled.histories.history, done, state[:, 1:])
        frames: list[Tensor] = []
        for step, frame in enumerate(rolled.frames(asked.num_steps - done, asked.lead), start=done + 1):
            frames.append(frame.float().cpu())
            if step % together and step < asked.num_steps:
                continue
            if place == 0:
                lock.check()
            told_by_first(torch.zeros(1), group)  # otherwise the first rank ends here, and so do all
            for writer in (rank for rank, own in enumerate(boxes) if own):
                if writer == place:
                    with errors_of_disks(), closing(open_file("r+")) as file:
                        for (at, cells), values in zip(boxes[place], torch.stack(frames, dim=1), strict=True):
                            file.write(first + at, step - len(frames), values.numpy(), cells)
                told_by_first(torch.zeros(1), group)  # it has written
            state[:, 0], state[:, 1:] = step, rolled.largest
            yield len(frames)
            frames = []

    def _histories(self, first: int, end: int) -> Histories:
        """Read the histories of some trajectories: this rank's box of their cells, if ranks share them."""
        asked, numbers = self.request, self.request.trajectories[first:end]
        window = asked.start, asked.num_frames
        if (share := share_of(self.model.config, self.model.sequence_group.ranks)) is None:
            return Whole(self.model, read_history(asked.data, numbers, *window, asked.num_steps))
        return Boxes(self.model, read_history_part(asked.data, numbers, *window, share, asked.num_steps))

    def _digest(self, suffix: str) -> str:
        """Return a digest that differs between forecasts and between formats."""
        asked = {name: value for name, value in vars(self.request).items() if name != "data"}
        chosen = [self.request.data.trajectories[number] for number in self.request.trajectories]
        physics = [(each.parameters, each.grid, each.spacing, each.boundary, each.time_step) for each in chosen]
        model = weights_fingerprint(self.model), vars(self.model.config.tokens)
        told = self.request.data.told, self.request.data.given
        return hashlib.sha256(
            repr((self.request.sources(), physics, told, asked, model, self.batch_size, suffix)).encode()
        ).hexdigest()


def forecast(
    model: str | Path | MateyModel | Trained,
    data: str | Path | TrajectorySet,
    *,
    steps: int,
    lead: int = 1,
    conserve: bool = False,
    start: int = 0,
    trajectories: Sequence[int] | int | None = None,
    history: int | None = None,
    batch_size: int = 16,
    device: str | None = None,
    command: str | None = None,
) -> Forecasts:
    """Forecast trajectories of a data set, also beyond their ends.

        for frame in matey.forecast("models/matey-micro", "data/new", steps=100):
            print(frame.time, frame.values.mean())
        dataset = matey.forecast("models/matey-micro", "data/new", steps=100).to_xarray()

    Args:
        model: a model, or the folder of a model or a run.
        data: a data set, or the file, folder or glob that holds it.
        steps: number of snapshots to forecast.
        lead: number of snapshots predicted from the same history; if it equals ``steps``, all come from the known frames.
        conserve: whether frames keep the totals of what the system conserves, as far as known (`matey.evaluate.rollout`).
        start: first frame that the model is given.
        trajectories: numbers of the trajectories, counted from 0, or one number; by default all.
        history: number of frames that the model is given; by default as many as in its training.
        batch_size: number of trajectories forecast together.
        device: device to compute on; by default the model's.
        command: command or program that a file names as its origin, and that prints `Forecasts.note` itself; without a
            command, the note becomes a warning.

    Returns:
        The forecasts, computed when they are iterated over, written, or turned into an xarray Dataset.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: the data cannot be opened or does not fit the model, or a trajectory has no such frames.
    """
    whole: dict[str, object] = {"steps": steps, "lead": lead, "batch_size": batch_size, "start": start}
    for name, number in (whole if history is None else whole | {"history": history}).items():
        smallest = 0 if name == "start" else 1
        if not isinstance(number, Integral) or int(number) < smallest:
            raise DataError(f"{name}: expected a whole number of {smallest} or more, got {number!r}.")
    trained = Trained("model", model) if isinstance(model, MateyModel) else model
    if not isinstance(trained, Trained):
        with quiet():
            trained = load_trained(trained)
    found_by, data = (None, data) if isinstance(data, TrajectorySet) else (data, open_dataset(data))
    data = data.with_given(trained.model.config.given)
    asked = range(data.num_trajectories) if trajectories is None else trajectories
    chosen = (asked,) if isinstance(asked, int) else tuple(dict.fromkeys(asked))
    num_frames = trained.num_frames if history is None else history
    request = ForecastRequest(data, chosen, start, num_frames, steps, lead, conserve)
    held_out = HeldOut((data,), (chosen,), num_frames)
    check_fit(trained.model, held_out)
    network = trained.model if device is None else trained.model.to(device)
    lacking = lacking_note(trained.model.config.parameters, trained.model.config.given, [data])
    note = "\n".join(filter(None, [lacking, *beyond_training(trained.model.config, held_out)]))
    if note and command is None:
        warnings.warn(note, stacklevel=2)
    return Forecasts(network, request, batch_size, origin_of(trained, request, command), found_by, note)


@dataclass(frozen=True)
class Progress:
    """The files of a forecast in progress.

    Attributes:
        path: final path of the file, once it is complete.
        made_as: digest of the request and the format, by which a later process recognises the file.
    """

    path: Path
    made_as: str

    @property
    def unfinished(self) -> Path:
        """Path of the file until it is complete."""
        return self.path.with_name(f".{self.path.stem}.unfinished{self.path.suffix}")

    @property
    def record(self) -> Path:
        """Path of the record of completed steps."""
        return self.path.with_name(f".{self.path.name}.progress")

    def state(self) -> Tensor | None:
        """Return completed steps and largest changes ``(b, 1 + f)`` of the trajectories; None without such a file."""
        try:
            record = json.loads(regular(self.record).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no record, or another program's
            return None
        if not (isinstance(record, dict) and record.get("made_as") == self.made_as and self.unfinished.exists()):
            return None
        return torch.tensor(record["done"], dtype=torch.float64)

    def note(self, state: Tensor) -> None:
        """Record completed steps and largest changes ``(b, 1 + f)`` of the trajectories."""
        new = self.record.with_name(f"{self.record.name}.new")
        new.write_text(json.dumps({"made_as": self.made_as, "done": state.tolist()}), encoding="utf-8")
        os.replace(new, self.record)

    def clear(self) -> None:
        """Remove the files that an earlier forecast has left behind."""
        remove(self.unfinished)
        remove(self.record)

    def finish(self) -> None:
        """Give the file its final name, replacing an older file."""
        remove(self.path) if self.path.is_dir() else None
        os.replace(self.unfinished, self.path)
        remove(self.record)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def boxes_of_ranks(histories: Histories, num_ranks: int) -> list[list[Box]]:
    """Return the boxes that each rank writes; of fields that all ranks hold whole, the first writes all."""
    if isinstance(histories, Boxes):
        return histories.of_ranks
    z, y, x = (slice(0, length) for length in histories.batch.grid)
    return [[(sample, (z, y, x)) for sample in range(histories.batch.num_samples)], *[[]] * (num_ranks - 1)]


def told_by_first(numbers: Tensor, group: SequenceGroup) -> Tensor:
    """Return the first rank's numbers on all ranks; the others give a tensor of the same size."""
    own = numbers if group.ranks.place == 0 else numbers[:0]
    return group.exchange.gather(own, [len(numbers), *[0] * (group.size - 1)])


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
    model: MateyModel, request: ForecastRequest, file: ForecastFile, field: int, steps: Sequence[int]
) -> Iterator[View]:
    """Yield one field of the first trajectory at chosen steps.

    Args:
        model: the model, which chooses the tokens.
        request: the request that the file was made for.
        file: the complete file.
        field: index of the field along axis ``f``.
        steps: the steps, counted from 1.
    """
    number, num_frames = request.trajectories[0], request.num_frames
    known = read_history(request.data, [number], request.start, num_frames)
    for step, time in zip(steps, request.times(request.last_known + np.array(steps)), strict=True):
        recent = torch.from_numpy(file.read(0, 1, max(0, step - num_frames), step))  # (b, t, f, z, y, x)
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
    for (place, number), cell in product(enumerate(request.trajectories), cells):
        z, y, x = (slice(at, at + 1) for at in cell)
        forecast, truth = np.full((2, len(steps), len(request.data.fields)), np.nan, np.float32)
        forecast[request.num_frames :] = file.read(place, place + 1, 0, request.num_steps, (z, y, x))[0, :, :, 0, 0, 0]
        for row, step in enumerate(steps.tolist()):
            if (true := request.truth(number, step, (z, y, x))) is not None:
                truth[row] = true[:, 0, 0, 0]
        found.append(ProbeSeries(number, cell, steps, times, forecast, truth))
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


def closing_table(request: ForecastRequest, file: ForecastFile) -> str:
    """Return a table with a line for each field and means over the trajectories.

    The means of a field over the domain are those of the last known frame and of the last forecast frame; for a conserved
    quantity in a closed domain they agree. The drift is their difference over the root mean square of the known frames.
    Errors are those of the last frames with a truth, which a trajectory with NaN or infinity there does not have; beside them
    stand those of the known frame again, as in `matey.report.evaluation.summary_text`.
    """
    known, last, sizes, errors = [], [], [], []
    counts: set[int] = set()  # of the true frames at which errors are taken
    for place, number in enumerate(request.trajectories):
        before = request.data.read(number, request.last_known, request.last_known + 1)[0].astype(np.float64)
        after = file.read(place, place + 1, request.num_steps - 1, request.num_steps)[0, 0].astype(np.float64)
        known.append(before.mean(axis=CELLS, where=~np.isnan(before)))
        last.append(after.mean(axis=CELLS, where=~np.isnan(before)))
        sizes.append(np.sqrt(np.nanmean(before**2, axis=CELLS)))
        num_true = request.num_true(number)
        if num_true and (target := request.truth(number, num_true)) is not None:
            forecast = file.read(place, place + 1, num_true - 1, num_true)[0, 0]
            guesses = torch.from_numpy(np.stack([forecast, before]))  # (2, f, z, y, x)
            truth = torch.from_numpy(target).double().expand_as(guesses)
            counts.add(num_true)
            errors.append(torch.cat([vrmse(guesses, truth), nrmse(guesses, truth)]))
    most = f" to {max(counts)}" if len(counts) > 1 else ""
    error_head = [f"VRMSE at step {min(counts)}{most}", "of last", "NRMSE", "of last"] if counts else []
    head, rows = ["mean of the domain", "known", f"step {request.num_steps}", "drift", *error_head], []
    for index, name in enumerate(request.data.fields):
        start, end, size = (np.mean(values, axis=0)[index] for values in (known, last, sizes))
        error = map(error_text, torch.stack(errors).mean(dim=0)[:, index].tolist()) if errors else []
        rows.append([name, f"{start:.5g}", f"{end:.5g}", f"{(end - start) / max(size, 1e-30):+.2%}", *error])
    if not errors:
        return text_table(head, rows)
    of_model, of_last = torch.stack(errors).mean(dim=0).reshape(2, 2, -1)[0]  # VRMSE of each field
    worse = [name for name, is_worse in zip(request.data.fields, of_model > of_last, strict=True) if is_worse]
    warning = (
        f"\nWorse than the last frame again: {', '.join(worse)}. A longer --lead takes fewer steps." if worse else ""
    )
    return f"{text_table(head, rows)}\nof last: of the last known frame again, persistence.{warning}"
