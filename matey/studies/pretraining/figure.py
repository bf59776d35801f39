"""The plot of a study: errors against what they cost."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matey.report.plots import COLOURS, STYLE
from matey.studies.folder import Row, deviation
from matey.studies.pretraining.costs import COSTS
from matey.studies.pretraining.rows import errors_of
from matey.studies.ticks import plain_ticks

MARKERS = "osD^vP"
LINES = ("-", "--", ":")
FORECASTS = 2
"""Forecasts that are drawn: the shortest and the longest lead; rollouts are in the table."""


@matplotlib.rc_context(STYLE)
def study_figure(rows: Sequence[Row], costs: Sequence[str]) -> Figure:
    """Draw NRMSE over that of persistence against each cost, a row of panels for each lead.

    Points are means over the seeds, bars their deviations.

    Args:
        rows: rows of the points done so far, see `matey.studies.pretraining.rows.rows_of`.
        costs: names of the costs.
    """
    forecasts = list(dict.fromkeys(row["forecast"] for row in rows))[:FORECASTS]
    figure = Figure(figsize=(3.3 * len(costs), 2.9 * len(forecasts) + 0.8), layout="constrained")
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


def _panel(axes: Axes, rows: Sequence[Row], forecast: str, cost: str) -> None:
    for number, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
        cases = dict.fromkeys(row["case"] for row in rows if row["series"] == series)
        points = []
        for case in cases:
            own = [row for row in rows if row["case"] == case]
            errors = errors_of(own, forecast)
            points.append((COSTS[cost][1] * np.mean([row[cost] for row in own]), np.mean(errors), deviation(errors)))
        at, means, deviations = zip(*sorted(points), strict=True)
        axes.errorbar(
            at,
            means,
            deviations,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],  # of another period than the colours: no two series are alike
            linestyle=LINES[number // len(COLOURS) % len(LINES)] if len(points) > 1 else "",
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=series,
        )
    axes.set(xscale="log", yscale="log")
