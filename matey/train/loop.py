"""The training loop: next batch, forward, backward, step, log, validate, save; with its learning rate and progress bar.

A step's sums over all ranks become a line of ``metrics.jsonl``, or end the run if they are not finite.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from matey.config import TrainSection
from matey.config.schema import LOSSES
from matey.data.reading import read_parts, read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.model.boxes import share_of
from matey.model.forecast import Forecast
from matey.model.matey import MateyModel
from matey.model.prepare import Prepared, prepare, prepare_parts
from matey.parallel.collectives import Engine, from_all_ranks, rank, sum_over_ranks
from matey.parallel.engine import forget_order_of_modules, set_learning_rate, take_step
from matey.parallel.exchange import Topology
from matey.parallel.failure import during
from matey.parallel.meter import Late, Meter, Reading, Traffic, count_traffic, take_traffic
from matey.process.signals import asked_to_leave
from matey.train.ahead import AsRead, MicroBatch, num_rolled, on_device, rolled_out
from matey.train.checkpoint import MovingAverage, RunError, RunFolder
from matey.train.describe import validation_sentence
from matey.train.loss import LossScale, training_loss, vrmse_of


def train(
    engine: Engine,
    stream: Iterator[MicroBatch],
    scales: Mapping[str, LossScale],
    validate: Callable[[], dict[str, Any] | None],
    settings: TrainSection,
    folder: RunFolder,
    average: MovingAverage,
    progress: Progress,
) -> Progress:
    """Train from ``progress`` until the run is done, or a signal asks it to leave; return the new progress.

    Args:
        engine: the model and its optimizer.
        stream: this rank's micro-batches on the engine's device, from the one after ``progress.step`` on.
        scales: the error that counts as a loss of 1, for every system that the stream may bring.
        validate: function that returns the numbers of the validation, with ``valid_vrmse`` among them, or None if a signal
            interrupted it; called on all ranks.
        settings: the section ``train`` of the run's settings.
        folder: the run's folder.
        average: the moving average of the weights; if it is kept, it is validated and saved as the best weights.
        progress: the state that the run has reached.

    Raises:
        RunError: the loss is not finite, or a checkpoint cannot be written.
    """
    log = MetricsLog(folder.metrics, engine)
    if progress.owes_validation:
        progress = _validate(engine, validate, progress, folder, log, average)
        if progress.owes_validation or progress.is_done(settings):
            return progress  # the checkpoint is whole: it is not written again to say that the validation is done
    interval = 0.1 if sys.stderr.isatty() else LINE_EVERY
    counts: dict[str, Any] = {"total": settings.steps, "initial": progress.step, "unit": "step", "miniters": 1}
    bar = tqdm(**counts, mininterval=interval, dynamic_ncols=True, disable=rank() > 0)
    meter = Meter(engine.device)
    before: TakenStep | None = None
    for step in range(progress.step + 1, settings.steps + 1):
        if step > settings.steps - settings.count_traffic:
            count_traffic()
        with during(f"step {step}"):
            taken = take_step_of(engine, stream, scales, settings, average, step, meter)
        # A step's numbers are read once the device has the next step to do, or before anything is saved.
        leaves = before is not None and _note(before, log, bar, folder)
        before = taken
        validates = step % settings.validate_every == 0 or step == settings.steps
        if validates or step % settings.checkpoint_every == 0 or leaves:
            leaves = _note(taken, log, bar, folder) or leaves
            before = None
        progress = replace(progress, step=step)
        if validates:
            progress = replace(progress, owes_validation=True)
            # A run that is asked to leave saves first, since it is soon killed; the resumed run validates.
            if not leaves:
                progress = _validate(engine, validate, progress, folder, log, average)
                leaves = progress.owes_validation
        is_done = progress.is_done(settings)
        if step % settings.checkpoint_every == 0 or is_done or leaves:
            with during(f"saving step {step}"):
                folder.save(engine, step, progress.state(), settings.keep_checkpoints, average)
        if is_done or leaves:
            break
    bar.close()
    return progress


def _note(taken: TakenStep, log: MetricsLog, bar: tqdm[Any], folder: RunFolder) -> bool:
    """Log a step, show it, and return whether some rank was asked to leave by then."""
    totals = taken.read(log, folder)
    bar.set_postfix_str(
        f"loss {totals.per_sample:.4f}, {totals.num_tokens / taken.seconds:,.0f} tokens/s", refresh=False
    )
    bar.update()
    return totals.leave


def _validate(
    engine: Engine,
    validate: Callable[[], dict[str, Any] | None],
    progress: Progress,
    folder: RunFolder,
    log: MetricsLog,
    average: MovingAverage,
) -> Progress:
    """Validate after the step of ``progress``, keep the weights if they are the best so far, and return the progress.

    The progress still owes the validation if a signal interrupted it.
    """
    with average.in_place(), during(f"the validation after step {progress.step}"):
        numbers = validate()
        forget_order_of_modules(engine)
        if numbers is None:
            return progress
        log.write(step=progress.step, **numbers, chosen_by=progress.validated)
        is_best = numbers["valid_vrmse"] < progress.best
        if rank() == 0:
            tqdm.write(validation_sentence(progress.step, numbers, is_best=is_best))  # above the bar, which goes on
            sys.stdout.flush()
        if is_best:
            folder.save_model(engine)
    return progress.after(numbers["valid_vrmse"])


def take_step_of(
    engine: Engine,
    stream: Iterator[MicroBatch],
    scales: Mapping[str, LossScale],
    settings: TrainSection,
    average: MovingAverage,
    step: int,
    meter: Meter,
) -> TakenStep:
    """Take one step of the optimizer; its numbers are read later."""
    meter.start()
    take_traffic()  # of a validation or a save since the last step, which is none of this step
    rate = learning_rate(step, settings)
    rates = set_learning_rate(engine, rate)
    tally = Tally(scales, engine.device)
    # Counted from 0, as in reading, so that the micro-batches that were read to be rolled out are rolled out.
    for micro_step in range((step - 1) * settings.accumulation, step * settings.accumulation):
        batches = next(stream)
        meter.mark("data")
        lead_times = None
        if isinstance(batches, AsRead):
            lead_times = [each.samples.lead_time for each in batches.batches]
            forecasts = engine(rolled_out(engine, batches.batches, num_rolled(micro_step, settings)))
        else:
            forecasts = engine(batches)
        group = engine.module.sequence_group
        loss, per_sample = training_loss(forecasts, group, scales, LOSSES[settings.loss], lead_times)
        meter.mark("forward")
        # DeepSpeed averages gradients over all ranks; those of one sequence group are parts of a sum.
        engine.backward(loss * group.size)
        meter.mark("backward")
        grad_norm = take_step(engine)
        meter.mark("optimizer")
        tally.add(forecasts, per_sample)
        del batches, forecasts, loss, per_sample  # before the next one comes, which may take much memory
    assert grad_norm is not None, "the engine steps its optimizer in the last micro-step"
    totals = tally.reduce(leave=asked_to_leave())
    meter.mark("waiting")
    average.update(step)
    meter.mark("optimizer")
    is_logged = step % settings.log_every == 0 or step == settings.steps
    numbers = Late(grad_norm), meter.seconds(), take_traffic(), meter.read() if is_logged else None
    return TakenStep(step, rate, rates, totals, *numbers)


@dataclass(frozen=True)
class Progress:
    """The state of a run.

    Attributes:
        step: the last step taken.
        best: the best ``valid_vrmse``.
        stale: number of validations since the best one.
        owes_validation: whether the validation after the last step is still to be done, since a signal asked the run to
            stop before it.
        validated: hash of what is validated, see `matey.train.run_data.chosen_by`; ``best`` is valid for it only.
    """

    step: int = 0
    best: float = math.inf
    stale: int = 0
    owes_validation: bool = False
    validated: str = ""

    def after(self, valid_vrmse: float) -> Progress:
        """Return the progress after a validation."""
        if valid_vrmse < self.best:
            return replace(self, best=valid_vrmse, stale=0, owes_validation=False)
        return replace(self, stale=self.stale + 1, owes_validation=False)

    def is_done(self, settings: TrainSection) -> bool:
        """Return whether all steps are taken and validated, or ``patience`` is exhausted."""
        return self.has_stopped_early(settings) or (self.step >= settings.steps and not self.owes_validation)

    def has_stopped_early(self, settings: TrainSection) -> bool:
        """Return whether training ends because ``patience`` validations brought no new best."""
        return settings.patience is not None and self.stale >= settings.patience

    def state(self) -> dict[str, float | str]:
        """Return the state that a checkpoint keeps beside its step."""
        return {name: value for name, value in vars(self).items() if name != "step"}


LINE_EVERY = 30.0  # seconds between two states of the bar where standard error is no terminal


def learning_rate(step: int, train: TrainSection) -> float:
    """Return the learning rate of optimizer step ``step``, counted from 1: linear warm-up, then cosine or constant."""
    if step <= train.warmup_steps:
        return train.learning_rate * step / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    progress = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return train.final_learning_rate + (train.learning_rate - train.final_learning_rate) * cosine


def warm_up_notes(train: TrainSection) -> list[str]:
    """Return a sentence if the warm-up does not end before the run, as after its steps alone were shortened."""
    if train.warmup_steps < train.steps:
        return []
    return [
        f"The learning rate warms up over {train.warmup_steps} steps, and the run has {train.steps}: it ends at "
        f"{learning_rate(train.steps, train):.3g} and never falls; lower train.warmup_steps, too."
    ]


class Tally:
    """Sums of errors and counts on each rank, added up over the ranks in one reduction at the end."""

    def __init__(self, systems: Iterable[str], device: torch.device) -> None:
        self.systems = list(systems)
        self._sums = torch.zeros(2, len(self.systems) + 1, dtype=torch.float64, device=device)

    def add(self, forecasts: Sequence[Forecast], per_sample: Tensor) -> None:
        """Count a micro-batch with the error of each of its samples, ``(b,)`` over all its batches in order."""
        start = 0
        for forecast in forecasts:
            self.add_errors(forecast.samples.system, per_sample[start : start + forecast.samples.number])
            self._sums[0, -1] += forecast.num_tokens
            start += forecast.samples.number

    def add_errors(self, system: str, errors: Tensor) -> None:
        """Count the errors ``(b,)`` of samples of one system."""
        column = self.systems.index(system)
        self._sums[0, column] += errors.sum()
        self._sums[1, column] += len(errors)

    def reduce(self, leave: bool = False) -> Late:
        """Add up the sums of all ranks to `Totals`, and in the same reduction find out whether any wants to ``leave``."""
        self._sums[1, -1] = leave
        return Late(sum_over_ranks(self._sums), partial(Totals, self.systems))


class Totals:
    """Sums over all ranks of a step or a validation: errors and counts by system, tokens, and whether a rank wants to leave."""

    def __init__(self, systems: list[str], sums: list[list[float]]) -> None:
        self._errors, self._counts = sums[0][:-1], sums[1][:-1]
        self.num_tokens = int(sums[0][-1])
        self.leave = sums[1][-1] > 0
        self.by_system = {
            system: error / count
            for system, error, count in zip(systems, self._errors, self._counts, strict=True)
            if count > 0
        }

    @property
    def per_sample(self) -> float:
        """Mean error over all samples."""
        return sum(self._errors) / sum(self._counts)

    def mean_over(self, systems: Sequence[str]) -> float:
        """Mean over some systems of their mean errors."""
        errors = [error for system, error in self.by_system.items() if system in systems]
        return sum(errors) / len(errors)


@dataclass(frozen=True)
class TakenStep:
    """A step that was taken; its numbers may still be on their way from the device.

    Attributes:
        step: the step.
        learning_rate: learning rate of the step.
        rates: that of each group of parameters by its name, see `matey.parallel.engine.parameter_groups`.
        totals: `Totals` of the micro-batches of all ranks.
        grad_norm: the norm of the gradient.
        seconds: seconds that this rank's host took for the step.
        traffic: bytes, calls and seconds of each kind of communication; None if they are not counted.
        reading: seconds, memory and cores; None if the step is not logged.
    """

    step: int
    learning_rate: float
    rates: Mapping[str, float]
    totals: Late
    grad_norm: Late
    seconds: float
    traffic: Traffic | None
    reading: Reading | None

    def read(self, log: MetricsLog, folder: RunFolder) -> Totals:
        """Read and log the numbers, and return the totals; wait if they have not come yet.

        Raises:
            RunError: the loss or the gradient is not finite, or the line cannot be written.
        """
        totals: Totals = self.totals.read()
        grad_norm: float = self.grad_norm.read()
        stop_unless_finite(totals, grad_norm, self.step, folder)
        if self.reading is not None:
            log.write(
                step=self.step,
                loss=totals.per_sample,
                loss_by_system=totals.by_system,
                learning_rate=self.learning_rate,
                **({"learning_rate_by_group": self.rates} if len({*self.rates.values()}) > 1 else {}),
                grad_norm=grad_norm,
                num_tokens=totals.num_tokens,
                seconds=self.seconds,
                **self.reading.numbers(),
                **({} if self.traffic is None else {"traffic": self.traffic}),
            )
        return totals


STEP = "matey/step"  # the axis of a run's numbers in W&B


class MetricsLog:
    """``metrics.jsonl``, with a JSON object per line, and the monitors that DeepSpeed's configuration turns on."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._monitor = engine.monitor
        self._wandb = engine.monitor.wandb_monitor
        if self._wandb is not None:
            import wandb

            wandb.define_metric("matey/*", step_metric=STEP)
        self._path = path
        if rank() == 0:
            with _writing(path):
                path.touch()

    def write(self, step: int, **numbers: Any) -> None:  # noqa: ANN401
        """Write a line; numbers that are dictionaries go to the monitors name by name."""
        if rank() > 0 or not self._path.parent.is_dir():  # the next save says that the run's folder is gone
            return
        # Opened for each line: one that is removed while it is open would take all further lines with it.
        with _writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._monitor.enabled:
            events = []
            for name, value in numbers.items():
                for suffix, number in value.items() if isinstance(value, dict) else (("", value),):
                    if not isinstance(number, dict | str):
                        events.append((f"matey/{name}/{suffix}".rstrip("/"), number, step))
            for monitor in (self._monitor.tb_monitor, self._monitor.csv_monitor, self._monitor.comet_monitor):
                if monitor is not None:
                    monitor.write_events(events)
            if self._wandb is not None:
                # DeepSpeed counts W&B's steps in samples, and W&B drops numbers of a smaller step.
                self._wandb.log({name: number for name, number, _ in events} | {STEP: step})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write {path} ({error.strerror}); free some space and start again with --resume."
        ) from None


def stop_unless_finite(totals: Totals, grad_norm: float, step: int, folder: RunFolder) -> None:
    """Raise RunError if the loss or the gradient of a step is not finite: the step has spoilt the weights."""
    if math.isfinite(totals.per_sample) and math.isfinite(grad_norm):
        return
    what = "gradient" if math.isfinite(totals.per_sample) else "loss"
    good = folder.newest_step()
    advice = "there is no checkpoint yet" if good is None else f"the last good checkpoint is step {good}"
    losses = ", ".join(f"{system} {value:g}" for system, value in totals.by_system.items())
    raise RunError(
        f"The {what} of step {step} is not finite (loss of {losses}); {advice}. Lower train.learning_rate or "
        "train.clip_norm, or look for bad values in the data of the systems named."
    )


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
    """Return ``valid_vrmse`` (mean over the data sets trained on), the same by data set, and persistence's by data set.

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
        if any(from_all_ranks(asked_to_leave())):
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
            errors = vrmse_of(guesses, engine.module.sequence_group)
            for error in errors if mine < len(chunks) else ():
                tally.add_errors(names[chunk[0].set_index], error.mean(dim=1))
        del prepared, forecasts, last, same, guesses  # before the next one comes, which may take much memory
    engine.train()
    totals = model_error.reduce().read()
    return {
        "valid_vrmse": totals.mean_over(names[:num_trained]),
        "valid_vrmse_by_system": totals.by_system,
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
