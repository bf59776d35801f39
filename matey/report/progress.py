"""Shows the progress and the error curves of runs in the terminal: one watched run, or several compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import yaml
from rich.console import Group
from rich.table import Table
from rich.text import Text

from matey.checkpoints.run_files import CONFIG, LOCK, METRICS, best_validation, distinct_names, read_metrics
from matey.mistakes import Mistake

COLOURS = ("blue", "dark_orange", "green", "magenta", "yellow", "cyan", "red")
WINDOW = 50  # largest number of steps in the means of loss and speed


@dataclass(frozen=True)
class Progress:
    """A run's progress, as recorded in its folder.

    Attributes:
        name: name of the folder, with as much of its path as makes it unique.
        num_steps: planned number of steps.
        steps: the lines of ``metrics.jsonl`` that hold a loss.
        validations: the lines that hold a validation.
        is_held: whether a process has the folder's lock, or had it when it was killed.
    """

    name: str
    num_steps: int
    steps: Sequence[dict[str, Any]]
    validations: Sequence[dict[str, Any]]
    is_held: bool = False

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, and the last validation, checkpoint and weights that come after them."""
        return self.last >= self.num_steps and not self.is_held

    @property
    def last(self) -> int:
        """The last step in the log; 0 before the first."""
        return max((line["step"] for line in (*self.steps, *self.validations)), default=0)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The validation with the smallest error; None before the first."""
        return best_validation(self.validations)

    @property
    def loss(self) -> float:
        """Mean loss over the last steps."""
        last = [line["loss"] for line in self.steps[-WINDOW:]]
        return fmean(last) if last else math.nan

    @property
    def seconds_per_step(self) -> float:
        """Median time of the last logged steps; NaN if the log does not tell."""
        seconds = [line["seconds"] for line in self.steps[-WINDOW:] if "seconds" in line]
        return median(seconds) if seconds else math.nan

    @property
    def seconds_left(self) -> float:
        """Seconds to the last step at the recent speed; NaN if unknown."""
        return max(0, self.num_steps - self.last) * self.seconds_per_step


def read_runs(folders: Sequence[Path]) -> list[Progress]:
    """Read the logs of runs so far, see `read_progress`."""
    return [read_progress(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]


def read_progress(folder: Path, name: str | None = None) -> Progress:
    """Read the log of a run so far; its name is by default the folder's.

    Raises:
        Mistake: the folder is not a run's.
    """
    if not (folder / CONFIG).is_file():
        raise Mistake(
            f"{folder} is not the folder of a run: it holds no {CONFIG}; give what output.dir says, such as runs/demo."
        )
    num_steps = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["train"]["steps"]
    lines = [line for _, line in read_metrics(folder / METRICS).lines]
    losses = [line for line in lines if isinstance(line.get("loss"), float)]
    validations = [line for line in lines if "valid_vrmse" in line]
    lock = folder / LOCK
    is_held = lock.is_file() and lock.stat().st_size > 0
    return Progress(name or folder.resolve().name, num_steps, losses, validations, is_held)


def in_terminal(runs: Sequence[Progress], width: int) -> Group:
    """Return curves and tables of runs for a terminal of ``width`` columns."""
    panels: list[Text | Table] = []
    for title, curves in curves_of(runs).items():
        if any(len(curve.values) > 1 for curve in curves):
            panels += [Text(title, style="bold"), *text_curves(curves, width, height=10), Text()]
    head = ["run", "step", "loss", "best validation", "at step", "s/step", "left"]
    panels.append(_rich_table(head, map(run_row, runs), [COLOURS[i % len(COLOURS)] for i in range(len(runs))]))
    head, rows = system_rows(runs)
    if rows:
        panels += [Text("best validation: VRMSE, and over persistence's", style="bold"), _rich_table(head, rows)]
    return Group(*panels)


def curves_of(runs: Sequence[Progress]) -> dict[str, list[Curve]]:
    """Return a curve of each run by title: the running mean of the loss, and the mean validation error over systems."""
    losses, errors = [], []
    for run, colour in zip(runs, itertools.cycle(COLOURS)):
        means = smooth([line["loss"] for line in run.steps])
        losses.append(Curve(run.name, [line["step"] for line in run.steps], means, colour))
        places, values = ([line[key] for line in run.validations] for key in ("step", "valid_vrmse"))
        errors.append(Curve(run.name, places, values, colour))
    return {"training loss": losses, "VRMSE in validation": errors}


def run_row(run: Progress) -> list[str]:
    """Return a run's progress, speed and errors."""
    best, left = run.best or {}, run.seconds_left
    return [
        run.name,
        f"{run.last} of {run.num_steps}",
        _number(run.loss),
        _number(best.get("valid_vrmse")),
        str(best.get("step", "-")),
        _number(run.seconds_per_step),
        str(timedelta(seconds=round(left))) if math.isfinite(left) else "-",
    ]


def system_rows(runs: Sequence[Progress]) -> tuple[list[str], list[list[str]]]:
    """Return a table of the best validations: a row for each system, VRMSE and ratio to persistence for each run."""
    bests = [run.best or {} for run in runs]
    systems = dict.fromkeys(name for best in bests for name in best.get("valid_vrmse_by_system", {}))
    rows = []
    for system in systems:
        row = [system]
        for best in bests:
            error = best.get("valid_vrmse_by_system", {}).get(system)
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


def smooth(values: Sequence[float]) -> list[float]:
    """Return running means of each value and those before it, over a twentieth of all values, at most `WINDOW`."""
    length = min(WINDOW, len(values) // 20 + 1)
    sums = [0.0, *itertools.accumulate(values)]
    return [(sums[end] - sums[max(0, end - length)]) / min(end, length) for end in range(1, len(values) + 1)]


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


# Bit of each dot of a Braille character, by column and then by row from the top.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
LABEL = 9  # columns left of the plot, for the values at its top and bottom


@dataclass(frozen=True)
class Curve:
    """A curve to draw.

    Attributes:
        name: name in the legend below the plot.
        places: steps, one for each value.
        values: values; those that are not positive and finite are left out.
        colour: name of a colour of rich.
    """

    name: str
    places: Sequence[float]
    values: Sequence[float]
    colour: str


def text_curves(curves: Sequence[Curve], width: int, height: int) -> list[Text]:
    """Return lines of text: ``height`` lines for the plot, one for its axis, and one that names the curves.

    Args:
        curves: the curves, later ones over earlier ones.
        width: total number of columns.
        height: number of lines of the plot.
    """
    points = [
        [(x, math.log10(y)) for x, y in zip(curve.places, curve.values, strict=True) if 0 < y < math.inf]
        for curve in curves
    ]
    if not any(points):
        return []
    columns = max(10, width - LABEL - 1)
    last = max(x for own in points for x, _ in own)
    low, high = (end(y for own in points for _, y in own) for end in (min, max))
    cells = [[(0, "")] * columns for _ in range(height)]
    for curve, own in zip(curves, points, strict=True):
        places = [(2 * columns - 1) * x / max(last, 1) for x, _ in own]
        for column in range(round(places[0]), round(places[-1]) + 1) if own else ():
            y = np.interp(column, places, [y for _, y in own])
            row = round((4 * height - 1) * ((high - y) / (high - low) if high > low else 0.5))
            dots, _ = cells[row // 4][column // 2]
            cells[row // 4][column // 2] = (dots | DOTS[column % 2][row % 4], curve.colour)
    lines = []
    for number, row_of_cells in enumerate(cells):
        ends = {0: f"{10**high:.3g}", height - 1: f"{10**low:.3g}"}
        line = Text(f"{ends.get(number, ''):>{LABEL - 1}} ")
        for dots, colour in row_of_cells:
            line.append(chr(0x2800 + dots) if dots else " ", style=colour)
        lines.append(line)
    lines.append(Text(f"{'':{LABEL}}0{f'step {last:g}':>{columns - 1}}", style="dim"))
    if len(curves) > 1:
        names = Text(" " * LABEL)
        for curve in curves:
            names.append(f"{curve.name}   ", style=curve.colour)
        lines.append(names)
    return lines
