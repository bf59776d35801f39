"""The plots of a study: errors against costs, and costs against cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matey.report.plots import COLOURS, STYLE
from matey.studies.folder import Row
from matey.studies.pretraining.costs import COSTS
from matey.studies.pretraining.rows import errors_of, exponents
from matey.studies.seeds import deviation
from matey.studies.ticks import plain_ticks

MARKERS = "osD^vP"
LINES = ("-", "--", ":")
FORECASTS = 2
"""Number of forecasts drawn: the shortest and the longest lead; rollouts are in the table."""


@matplotlib.rc_context(STYLE)
def study_figure(rows: Sequence[Row], costs: Sequence[str]) -> Figure:
    """Draw NRMSE over that of persistence against each cost, a row of panels for each lead.

    Points are means over the seeds, bars their deviations.

    Args:
        rows: rows of the points done so far, see `matey.studies.pretraining.rows.rows_of`.
        costs: names of the costs.
    """
    forecasts = list(dict.fromkeys(row["forecast"] for row in rows))[:FORECASTS]
    num_series = len({row["series"] for row in rows})
    size = (2.4 * len(costs) + 0.4, 2.4 * len(forecasts) + 0.5 + 0.18 * -(-num_series // 4))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(forecasts), len(costs), squeeze=False, sharex="col", sharey="row")
    for line, forecast in zip(grid, forecasts, strict=True):
        for axes, cost in zip(line, costs, strict=True):
            _panel(axes, rows, forecast, cost)
        line[0].set_ylabel(f"{forecast}: NRMSE / persistence")
    for axes, cost in zip(grid[-1], costs, strict=True):
        axes.set_xlabel(COSTS[cost][0])
    plain_ticks([axes.xaxis for axes in grid[-1]] + [axes.yaxis for axes in grid[:, 0]])
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def growth_figure(rows: Sequence[Row], costs: Sequence[str]) -> Figure:
    """Draw each cost against the number of cells along an axis, with the exponent of each line in the panel's legend.

    Points are means over the seeds, bars their deviations; the last panel has the error at the longest lead.

    Args:
        rows: rows of the points done so far, see `matey.studies.pretraining.rows.rows_of`.
        costs: names of the costs.
    """
    *_, longest = list(dict.fromkeys(row["forecast"] for row in rows))[:FORECASTS]
    shown = [(key, *COSTS[key]) for key in costs] + [("ratio", f"{longest}: NRMSE / persistence", 1.0)]
    figure = Figure(figsize=(3.2 * -(-len(shown) // 2), 5.8), layout="constrained")
    panels = figure.subplots(2, -(-len(shown) // 2), squeeze=False, sharex=True)
    own = [row for row in rows if row["forecast"] == longest]
    for axes, (key, title, scale) in zip(panels.flat, shown, strict=False):
        for number, series in enumerate(dict.fromkeys(row["series"] for row in own)):
            of_series = [row for row in own if row["series"] == series]
            cells = sorted({float(row["label"]) for row in of_series})
            values = [[scale * row[key] for row in of_series if float(row["label"]) == each] for each in cells]
            grown = exponents(of_series, key) if key != "ratio" else {}
            growth = f", {np.mean([*grown.values()]):.2f}" if grown else ""
            _line(axes, number, f"{series}{growth}", zip(cells, values, strict=True))
        axes.set(xscale="log", yscale="log", title=title)
        axes.legend(fontsize=7)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, len(shown) - panels.shape[1]) : len(shown)]:  # those with nothing below
        axes.set_xlabel("cells along an axis; number: exponent")
        axes.tick_params(labelbottom=True)
    plain_ticks(axis for axes in panels.flat[: len(shown)] for axis in (axes.xaxis, axes.yaxis))
    return figure


def _panel(axes: Axes, rows: Sequence[Row], forecast: str, cost: str) -> None:
    for number, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
        cases = dict.fromkeys(row["case"] for row in rows if row["series"] == series)
        points = []
        for case in cases:
            own = [row for row in rows if row["case"] == case]
            errors = list(errors_of(own, forecast).values())
            points.append((float(COSTS[cost][1] * np.mean([row[cost] for row in own])), errors))
        labels = dict.fromkeys(row["label"] for row in rows if row["series"] == series)
        _line(axes, number, f"{series}, {labels.popitem()[0]}" if len(labels) == 1 else series, sorted(points))
    axes.set(xscale="log", yscale="log")


def _line(axes: Axes, number: int, label: str, points: Iterable[tuple[float, Sequence[float]]]) -> None:
    """Draw the means and deviations of the seeds' values, with the look of the series of this number."""
    at, values = zip(*points, strict=True)
    axes.errorbar(
        at,
        [np.mean(each) for each in values],
        [deviation(each) for each in values],
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],  # another period than the colours': no two series are alike
        linestyle=LINES[number // len(COLOURS) % len(LINES)] if len(at) > 1 else "",
        markersize=4.5,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )
