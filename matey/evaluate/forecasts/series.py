"""Makes forecasts from Python: an iterator over frames, an xarray Dataset, or a file; also exported as ``matey.forecast``."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from matey.checkpoints.trained import Trained, load_trained
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.registry import would_find
from matey.data.trajectories import lacking_note
from matey.evaluate.evaluation import check_fit
from matey.evaluate.forecasts.contents import Contents, contents_of, origin_of
from matey.evaluate.forecasts.formats import ForecastFile, FormatError, check_path, errors_of_disks, format_of
from matey.evaluate.forecasts.frames import Crew, ForecastFrame, forecast_batch, forecast_boxes, told_by_first
from matey.evaluate.forecasts.request import ForecastRequest
from matey.evaluate.held_out import HeldOut
from matey.mistakes import one_line, regular
from matey.model.matey import MateyModel, quiet
from matey.model.transfer import weights_fingerprint
from matey.samples import Box
from matey.train.folder import FileLock

if TYPE_CHECKING:
    import xarray

STRETCH_BYTES = 2**20  # bytes written at a time for one field of one trajectory

OpenFile = Callable[[Literal["r", "r+"]], ForecastFile]
"""Opens the unfinished file."""


@dataclass(frozen=True, repr=False)
class Forecasts:
    """Forecasts of some trajectories by one model, computed only on demand.

    Attributes:
        model: the model, on the device to compute on.
        request: the trajectories, the frame they start from, and the snapshots to forecast.
        batch_size: number of trajectories forecast together.
        facts: attributes of a file that describe its origin.
        found_by: file, folder or glob by which the user named the data.
        note: a sentence on parameters and given fields that the model takes and the data lacks; empty if nothing is missing.
    """

    model: MateyModel
    request: ForecastRequest
    batch_size: int = 16
    facts: Mapping[str, str] = field(default_factory=dict)
    found_by: str | Path | None = None
    note: str = ""

    def __repr__(self) -> str:
        """Return one line, because a network would print hundreds."""
        asked = self.request
        return f"Forecasts({asked.data.system}, trajectories {list(asked.trajectories)}, {asked.num_steps} snapshots)"

    @property
    def contents(self) -> Contents:
        """Axes, coordinates and attributes of the forecasts as a data set."""
        return contents_of(self.request, self.facts)

    def __iter__(self) -> Iterator[ForecastFrame]:
        """Forecast, and yield all snapshots of one batch of trajectories, then those of the next batch."""
        for first, end in self.request.batches(self.batch_size, [0] * len(self.request.trajectories)):
            yield from forecast_batch(self.model, self.request, first, end, done=0)

    def to_xarray(self) -> xarray.Dataset:
        """Forecast, and return all frames in memory: dimensions ``trajectory, time, [z,] y, x``, one variable per field.

        Raises:
            FormatError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise FormatError("xarray is not installed: pip install 'matey-pde[forecast]'.") from None
        contents = self.contents
        values = {name: np.empty(contents.shape, dtype=np.float32) for name in contents.fields}
        for frame in self:
            of_fields = contents.values_of(frame.values.float().cpu().numpy())
            for name, of_field in of_fields.items():
                values[name][frame.first : frame.first + len(frame.trajectories), frame.step - 1] = of_field
        fields = {name: (about.dims, values[name], about.attributes) for name, about in contents.fields.items()}
        coordinates = {name: (c.dims, c.values, c.attributes) for name, c in contents.coordinates.items()}
        return xarray.decode_cf(xarray.Dataset(fields, coordinates, contents.attributes))

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
            FormatError: the file exists already, the suffix names no format, a package is missing, or ranks see other files.
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
        if (covers := would_find(path, self.found_by)) is not None:
            raise FormatError(f"{path} would be taken for data, since {covers} matches it; write it to another folder.")

    def _write(self, path: Path, lock: FileLock, on_frames: Callable[[int], object]) -> None:
        """Forecast into a file whose lock the first rank holds."""
        contents, num_steps = self.contents, self.request.num_steps
        stretch = min(num_steps, max(1, STRETCH_BYTES // (4 * math.prod(contents.shape[2:]))))
        group = self.model.sequence_group
        is_first = group.ranks.place == 0
        progress = Progress(path, self._digest(path.suffix) if is_first else "")
        done = [0] * len(self.request.trajectories)
        if is_first:
            done = progress.done() or self._begin(progress, stretch)
        done = told_by_first(torch.tensor(done), group).tolist()
        if len(group.exchange.gather(torch.tensor([progress.token]), [1] * group.size).unique()) > 1:
            raise FormatError(
                f"The {group.size} ranks, which write into one file, do not see the same {progress.unfinished}; choose a "
                "folder that all of them share."
            )
        on_frames(sum(done))
        form = format_of(path)
        open_file = partial(form.open_file, progress.unfinished, contents)
        for first, end in list(self.request.batches(self.batch_size, done)):
            crew = Crew.sharing(self.model, self.request.samples(first, end))
            for step, frames in self._stretches(crew, open_file, first, end, done[first], stretch):
                if is_first:
                    lock.check()
                told_by_first(torch.zeros(1), group)  # otherwise the first rank ends here, and so do all
                for _ in crew.in_turn(form.layers_together(contents)):
                    with errors_of_disks(), closing(open_file("r+")) as file:
                        for (sample, cells), values in zip(crew.own, frames, strict=True):
                            file.write(first + sample, step - len(values), values.numpy(), cells)
                new = step - done[first]
                done[first:end] = [step] * (end - first)
                if is_first:
                    progress.note(done)
                on_frames(max(0, new) * (end - first))
        if is_first:
            lock.check()
            progress.finish()

    def _begin(self, progress: Progress, stretch: int) -> list[int]:
        """Make a file without values; return the number of completed steps of each trajectory, all 0."""
        progress.clear()
        done = [0] * len(self.request.trajectories)
        with errors_of_disks():
            format_of(progress.path).make(progress.unfinished, self.contents, stretch)
        progress.note(done)
        return done

    def _stretches(
        self, crew: Crew, open_file: OpenFile, first: int, end: int, done: int, stretch: int
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Forecast a batch; every ``stretch`` frames, yield the step and the frames ``(t, f, z, y, x)`` in own boxes."""

        def earlier(boxes: Sequence[Box], start: int, stop: int) -> list[Tensor]:
            with closing(open_file("r")) as file:
                read = (file.read(first + place, first + place + 1, start, stop, cells)[0] for place, cells in boxes)
                return [torch.from_numpy(frames) for frames in read]

        frames: list[list[Tensor]] = []
        for step, frame in forecast_boxes(self.model, self.request, crew, first, end, done, earlier):
            frames.append(frame)
            if step % stretch == 0 or step == self.request.num_steps:
                yield step, [torch.stack(of_box) for of_box in zip(*frames, strict=True)]
                frames = []

    def _digest(self, suffix: str) -> str:
        """Return a digest that differs between forecasts and between formats."""
        request = self.request
        chosen = [request.data.trajectories[number] for number in request.trajectories]
        physics = [(each.parameters, each.grid, each.spacing, each.boundary, each.time_step) for each in chosen]
        asked = {name: value for name, value in vars(request).items() if name != "data"}
        model = weights_fingerprint(self.model), vars(self.model.config.tokens)
        facts = request.sources(), physics, request.data.told, request.data.given, asked, model, suffix
        return hashlib.sha256(repr(facts).encode()).hexdigest()


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
        conserve: whether frames keep the totals of what the system conserves, as far as known (`matey.evaluate.conservation`).
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
    trained = model if isinstance(model, Trained) else _trained(model)
    found_by, data = (None, data) if isinstance(data, TrajectorySet) else (data, open_dataset(data))
    data = data.with_given(trained.model.config.given)
    chosen = _chosen(trajectories, data.num_trajectories)
    num_frames = trained.num_frames if history is None else history
    request = ForecastRequest(data, chosen, start, num_frames, steps, lead, conserve)
    check_fit(trained.model, HeldOut((data,), (chosen,), num_frames))
    try:
        network = trained.model if device is None else trained.model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(
            f"device: expected one that PyTorch has, such as cpu, got {device!r} ({one_line(error)})."
        ) from None
    note = lacking_note(trained.model.config.parameters, trained.model.config.given, [data])
    if note and command is None:
        warnings.warn(note, stacklevel=2)
    return Forecasts(network, request, batch_size, origin_of(trained, request, command), found_by, note)


def _chosen(trajectories: object, num_trajectories: int) -> tuple[int, ...]:
    """Return the numbers of the chosen trajectories, each once."""
    asked = range(num_trajectories) if trajectories is None else trajectories
    numbers = [asked] if isinstance(asked, Integral) else [*asked] if isinstance(asked, Iterable) else [None]
    if not all(isinstance(number, Integral) for number in numbers):
        raise DataError(f"trajectories: expected their numbers, counted from 0, or None for all, got {trajectories!r}.")
    if not numbers:
        raise DataError("No trajectory is chosen; expected one or more.")
    return tuple(dict.fromkeys(int(number) for number in numbers if isinstance(number, Integral)))


def _trained(model: str | Path | MateyModel) -> Trained:
    if isinstance(model, MateyModel):
        return Trained("model", model)
    with quiet():
        return load_trained(model)


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

    def done(self) -> list[int] | None:
        """Return the number of completed steps of each trajectory; None if there is no such unfinished file."""
        try:
            record = json.loads(regular(self.record).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no record, or another program's
            return None
        if not (isinstance(record, dict) and record.get("made_as") == self.made_as and self.unfinished.exists()):
            return None
        return [int(steps) for steps in record["done"]]

    @property
    def token(self) -> int:
        """A number drawn when the unfinished file was made, which tells it from all others; -1 if there is no record."""
        try:
            return int(json.loads(regular(self.record).read_text(encoding="utf-8"))["token"])
        except (OSError, ValueError, TypeError, KeyError):
            return -1

    def note(self, done: Sequence[int]) -> None:
        """Record the number of completed steps of each trajectory."""
        new, token = self.record.with_name(f"{self.record.name}.new"), self.token
        about = {"made_as": self.made_as, "token": secrets.randbits(62) if token < 0 else token, "done": list(done)}
        new.write_text(json.dumps(about), encoding="utf-8")
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
