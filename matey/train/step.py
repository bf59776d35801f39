"""A step that was taken: its sums over all ranks become a line of ``metrics.jsonl``, or end the run if they are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matey.model.forecast import Forecast
from matey.parallel.collectives import rank, sum_over_ranks
from matey.parallel.meter import Late, Reading, Traffic
from matey.parallel.package import Engine
from matey.train.checkpoint import RunError, RunFolder


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
        self._systems, self._errors, self._counts = systems, sums[0][:-1], sums[1][:-1]
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

    @property
    def share_by_system(self) -> dict[str, float]:
        """Share of each system in the sum of all samples' errors, which shows a system that dominates the loss."""
        total = sum(self._errors) or 1.0
        errors = dict(zip(self._systems, self._errors, strict=True))
        return {system: errors[system] / total for system in self.by_system}

    def __str__(self) -> str:
        """The mean error and, if there are several systems, the system with the largest share of it."""
        shares = self.share_by_system
        most = max(shares, key=shares.__getitem__)
        return f"{self.per_sample:.4f}" + (f" ({shares[most]:.0%} {most})" if len(shares) > 1 else "")

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
        totals: `Totals` of the micro-batches of all ranks.
        grad_norm: the norm of the gradient.
        seconds: seconds that this rank's host took for the step.
        traffic: bytes, calls and seconds of each kind of communication; None if they are not counted.
        reading: seconds, memory and cores; None if the step is not logged.
    """

    step: int
    learning_rate: float
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
                loss_share_by_system=totals.share_by_system,
                learning_rate=self.learning_rate,
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
