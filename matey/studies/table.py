"""Tables and plots of all studies, as means and deviations over the seeds.

A row is one training's score of one system and forecast, with the costs of the training. Rows with the same ``series`` and
``label`` are one model, whose seeds are averaged; a series is a line of the plot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from matey.report.plots import COLOURS, PERSISTENCE, STYLE
from matey.text_table import text_table

Row = dict[str, Any]

MARKERS, LINES = "osD^vP", ("-", "--", ":")
NEAR_PERSISTENCE = 0.5  # ratio to persistence above which a panel includes persistence's own line


@dataclass(frozen=True)
class Column:
    """A number of each training beside its errors.

    Attributes:
        title: heading in the table, and label of an axis in the plot.
        form: format of the number in the table.
        factor: factor to the unit shown.
    """

    title: str
    form: str = "{:.3g}"
    factor: float = 1.0


@dataclass(frozen=True)
class Panel:
    """A panel of a plot: two numbers of some rows, on logarithmic axes.

    Attributes:
        rows: the rows.
        x: key of the horizontal number; that of a label is a number as text.
        x_title: label of the horizontal axis.
        y_title: label of the vertical axis.
        y: key of the vertical number.
    """

    rows: Sequence[Row]
    x: str
    x_title: str
    y_title: str
    y: str = "ratio"


def models_in(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each model."""
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(f"{row['series']}, {row['label']}", []).append(row)
    return models


def tasks_in(rows: Iterable[Row], *, by_system: bool) -> dict[str, list[Row]]:
    """Return the rows of each forecast, of each system apart or of all together; rows without a forecast are of none."""
    tasks: dict[str, list[Row]] = {}
    for row in (row for row in rows if "forecast" in row):
        tasks.setdefault(f"{row['system']}, {row['forecast']}" if by_system else row["forecast"], []).append(row)
    return tasks


def results_table(rows: Sequence[Row], columns: Mapping[str, Column], *, by_system: bool = False) -> str:
    """Format costs and errors of each model; an error is VRMSE over persistence's, a geometric mean over the systems."""
    tasks, lines = tasks_in(rows, by_system=by_system), []
    for name, own in models_in(rows).items():
        of_task, cells = tasks_in(own, by_system=by_system), []
        for key, column in columns.items():
            known = [row[key] for row in own if row[key] is not None]
            cells.append(column.form.format(column.factor * mean(known)) if known else "-")
        cells += [mean_and_deviation(errors_of(of_task.get(task, [])).values()) for task in tasks]
        lines.append([name, *cells, str(len({row["seed"] for row in own}))])
    return text_table(["", *(column.title for column in columns.values()), *tasks, "seeds"], lines)


def errors_of(rows: Iterable[Row]) -> dict[int, float]:
    """Return, for each seed, the geometric mean over the systems of the error over persistence's."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row["ratio"])
    return {seed: math.exp(np.mean(np.log(ratios))) for seed, ratios in by_seed.items()}


def mean_and_deviation(values: Iterable[float]) -> str:
    """Return the mean of the seeds' values and their deviation as text, or that a seed diverged."""
    known = list(values)
    if not known:
        return "-"
    if not all(map(math.isfinite, known)):
        return "diverged"
    return f"{mean(known):.3f}" if len(known) < 2 else f"{mean(known):.3f} ± {stdev(known):.3f}"


@matplotlib.rc_context(STYLE)
def results_figure(panels: Sequence[Sequence[Panel]], columns: Mapping[str, Column]) -> Figure:
    """Draw panels in rows, whose columns share the horizontal axis; points are means over seeds, bars their deviations."""
    series = list(dict.fromkeys(row["series"] for line in panels for panel in line for row in panel.rows))
    across, down = len(panels[0]), len(panels)
    size = (2.6 * across + 0.6, 2.3 * down + 0.5 + 0.18 * -(-len(series) // 4))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex="col")
    for axes, panel in zip(grid.flat, (panel for line in panels for panel in line), strict=True):
        for number, name in enumerate(series):
            if own := [row for row in panel.rows if row["series"] == name]:
                _line(axes, number, name, panel, own, columns)
        axes.set(xscale="log", yscale="log", ylabel=panel.y_title)
        if panel.y == "ratio" and axes.get_ylim()[1] > NEAR_PERSISTENCE:
            axes.axhline(1, color=PERSISTENCE, ls=(0, (4, 3)), lw=1)  # elsewhere it would leave the models no room
    for axes, panel in zip(grid[-1], panels[-1], strict=True):
        axes.set_xlabel(panel.x_title)
    for axis in [axes.xaxis for axes in grid[-1]] + [axes.yaxis for axes in grid.flat]:
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        axis.set_minor_locator(NullLocator())  # further labels would overlap
    looks = {text: line for axes in grid.flat for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(looks.values(), looks, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _line(axes: Axes, number: int, name: str, panel: Panel, rows: Sequence[Row], columns: Mapping[str, Column]) -> None:
    """Draw the means and deviations of the seeds' values, with the look of the series of this number."""
    x_factor, y_factor = (columns[key].factor if key in columns else 1.0 for key in (panel.x, panel.y))
    points = []
    for own in models_in(rows).values():
        x = x_factor * np.mean([float(row[panel.x]) for row in own])
        of_seeds = errors_of(own) if panel.y == "ratio" else {row["seed"]: row[panel.y] for row in own}
        values = [y_factor * value for value in of_seeds.values()]
        points.append((x, np.mean(values), stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else 0))
    x, y, deviations = zip(*sorted(points), strict=True)
    axes.errorbar(
        x,
        y,
        deviations,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],  # another period than the colours': no two series are alike
        linestyle=LINES[number // len(COLOURS) % len(LINES)] if len(x) > 1 else "",
        markersize=4.5,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        label=name,
    )
