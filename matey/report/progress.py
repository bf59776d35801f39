"""How far runs are and how their errors went: one that is watched, or several beside each other, in the terminal."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group
from rich.table import Table
from rich.text import Text

from matey.checkpoints.metrics_log import read_metrics
from matey.checkpoints.run_files import CONFIG, METRICS
from matey.mistakes import Mistake
from matey.report.text_curves import Curve, text_curves

COLOURS = ("blue", "dark_orange", "green", "magenta", "yellow", "cyan", "red")
WINDOW = 50  # most steps over which the loss and the speed are means


@dataclass(frozen=True)
class Progress:
    """A run's progress, as its folder records it.

    Attributes:
        name: name of the folder.
        num_steps: steps that it is to take, or None where that cannot be read.
        steps: the lines of ``metrics.jsonl`` that hold a loss.
        validations: entries that hold a validation.
    """

    name: str
    num_steps: int | None
    steps: Sequence[dict[str, Any]]
    validations: Sequence[dict[str, Any]]

    @property
    def last(self) -> int:
        """The last step in the log, 0 before there is any."""
        return max((line["step"] for line in (*self.steps, *self.validations)), default=0)

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the smallest error, or None before there is any."""
        return min(self.validations, key=lambda line: line["valid_nrmse"], default=None)

    @property
    def loss(self) -> float:
        """Mean loss over the last steps."""
        last = [line["loss"] for line in self.steps[-WINDOW:]]
        return sum(last) / len(last) if last else math.nan

    @property
    def seconds_per_step(self) -> float:
        """Median time between the last logged steps; NaN where the log does not say."""
        seconds = sorted(line["seconds"] for line in self.steps[-WINDOW:] if "seconds" in line)
        return seconds[len(seconds) // 2] if seconds else math.nan

    @property
    def seconds_left(self) -> float:
        """Time to the last step at the recent speed; NaN where it cannot be told."""
        return math.nan if self.num_steps is None else max(0, self.num_steps - self.last) * self.seconds_per_step


def read_progress(folder: Path) -> Progress:
    """Read what a run has logged so far.

    Raises:
        Mistake: the folder is not that of a run.
    """
    if not (folder / CONFIG).is_file():
        raise Mistake(
            f"{folder} is not the folder of a run: it holds no config.yaml; give what output.dir says, such as runs/demo."
        )
    try:
        num_steps = int(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["train"]["steps"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        num_steps = None
    lines = [line for _, line in read_metrics(folder / METRICS).lines]
    losses = [line for line in lines if isinstance(line.get("loss"), float)]
    return Progress(folder.name, num_steps, losses, [line for line in lines if "valid_nrmse" in line])


def in_terminal(runs: Sequence[Progress], width: int) -> Group:
    """Return curves and tables of runs for a terminal of so many columns."""
    panels: list[Text | Table] = []
    for title, curves in (("training loss", loss_curves(runs)), ("NRMSE in validation", validation_curves(runs))):
        if any(len(curve.values) > 1 for curve in curves):
            panels += [Text(title, style="bold"), *text_curves(curves, width, height=10), Text()]
    head, rows = run_rows(runs)
    panels.append(_rich_table(head, rows, [COLOURS[i % len(COLOURS)] for i in range(len(runs))]))
    head, rows = system_rows(runs)
    if rows:
        panels += [Text("best validation: NRMSE, and over persistence's", style="bold"), _rich_table(head, rows)]
    return Group(*panels)


def loss_curves(runs: Sequence[Progress]) -> list[Curve]:
    """Return the running mean of each run's loss."""
    return [
        Curve(run.name, [line["step"] for line in run.steps], _smooth([line["loss"] for line in run.steps]), colour)
        for run, colour in zip(runs, itertools.cycle(COLOURS))
    ]


def validation_curves(runs: Sequence[Progress]) -> list[Curve]:
    """Return the error of each run's validations, the mean over its systems."""
    return [
        Curve(
            run.name,
            [line["step"] for line in run.validations],
            [line["valid_nrmse"] for line in run.validations],
            colour,
        )
        for run, colour in zip(runs, itertools.cycle(COLOURS))
    ]


def run_rows(runs: Sequence[Progress]) -> tuple[list[str], list[list[str]]]:
    """Return a table of runs: how far each is, at what speed, and its errors."""
    head = ["run", "step", "loss", "best validation", "at step", "s/step", "left"]
    rows = []
    for run in runs:
        best = run.best
        of = "" if run.num_steps is None else f" of {run.num_steps}"
        rows.append(
            [
                run.name,
                f"{run.last}{of}",
                _number(run.loss),
                _number(best["valid_nrmse"]) if best else "-",
                str(best["step"]) if best else "-",
                _number(run.seconds_per_step),
                _time(run.seconds_left),
            ]
        )
    return head, rows


def system_rows(runs: Sequence[Progress]) -> tuple[list[str], list[list[str]]]:
    """Return a table of the best validations: a row for each system, NRMSE and ratio to persistence for each run."""
    bests = [run.best or {} for run in runs]
    systems = dict.fromkeys(name for best in bests for name in best.get("valid_nrmse_by_system", {}))
    rows = []
    for system in systems:
        row = [system]
        for best in bests:
            error = best.get("valid_nrmse_by_system", {}).get(system)
            persistence = best.get("valid_persistence_by_system", {}).get(system)
            row += [_number(error), _number(error / persistence if error is not None and persistence else None)]
        rows.append(row)
    return ["system", *(cell for run in runs for cell in (run.name, "ratio"))], rows


def _rich_table(head: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(head):
        table.add_column(title, justify="right" if index else "left", overflow="fold")
    for row, style in itertools.zip_longest(rows, styles):
        table.add_row(Text(row[0], style=style or ""), *row[1:])
    return table


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and those before it, a twentieth of all or `WINDOW`."""
    length = min(WINDOW, len(values) // 20 + 1)
    sums = [0.0, *itertools.accumulate(values)]
    return [(sums[end] - sums[max(0, end - length)]) / min(end, length) for end in range(1, len(values) + 1)]


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    return f"{seconds:.0f} s" if seconds < 100 else time.strftime("%H:%M", time.gmtime(seconds)) + " h"
