"""The table and the plot of the study: errors against the number of training trajectories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from matey.report.plots import COLOURS
from matey.studies.folder import Row, deviation, mean_and_deviation, quotient
from matey.text_table import text_table

COLOUR_OF_MODE = dict(zip(("prepost", "all", "lora", "head"), COLOURS, strict=False))
LINES = {"pretrained": "-", "random": ":"}


def study_table(rows: Sequence[Row]) -> str:
    """Lay out NRMSE over that of persistence, mean and deviation over the seeds, and pretrained's over random's."""
    modes = sorted({row["mode"] for row in rows})
    starts = [start for start in LINES if any(row["start"] == start for row in rows)]
    heads = [f"{start}, {mode}" for mode in modes for start in starts]
    heads += [f"gain, {mode}" for mode in modes if len(starts) > 1]
    lines = []
    sizes = sorted({row["trajectories"] for row in rows})
    for forecast, size in itertools.product(_forecasts(rows), sizes):
        alike = [row for row in rows if (row["forecast"], row["trajectories"]) == (forecast, size)]
        ratios = {
            (start, mode): [
                row["nrmse"] / row["persistence_nrmse"] for row in alike if (row["start"], row["mode"]) == (start, mode)
            ]
            for mode in modes
            for start in starts
        }
        cells = [mean_and_deviation(values) for values in ratios.values()]
        if len(starts) > 1:
            cells += [quotient(ratios["pretrained", mode], ratios["random", mode]) for mode in modes]
        lines.append([forecast, str(size), *cells])
    return text_table(["forecast", "trajectories", *heads], lines)


def study_figure(rows: Sequence[Row], system: str) -> Figure:
    """Draw the test error against the number of trajectories, a panel a forecast; bars are the deviation over seeds."""
    forecasts = _forecasts(rows)
    chart = Figure(figsize=(3.6 * len(forecasts) + 1.6, 3.8), layout="constrained")
    for axes, forecast in zip(chart.subplots(1, len(forecasts), squeeze=False)[0], forecasts, strict=True):
        _panel(axes, [row for row in rows if row["forecast"] == forecast])
        axes.set_title(f"{system}, {forecast}", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return chart


def _forecasts(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of forecast that were scored, in their order."""
    return list(dict.fromkeys(row["forecast"] for row in rows))


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    sizes = sorted({row["trajectories"] for row in rows})
    for start, mode in sorted({(row["start"], row["mode"]) for row in rows}):
        own = [row for row in rows if (row["start"], row["mode"]) == (start, mode)]
        errors = {size: [row["nrmse"] for row in own if row["trajectories"] == size] for size in sizes}
        there = [size for size in sizes if errors[size]]
        means, deviations = ([of(errors[size]) for size in there] for of in (mean, deviation))
        line = LINES[start]
        axes.errorbar(
            there,
            means,
            deviations,
            label=f"{start}, {mode}",
            color=COLOUR_OF_MODE.get(mode, "#777777"),
            ls=line,
            marker="o",
            ms=4,
            capsize=3,
        )
    axes.axhline(mean([row["persistence_nrmse"] for row in rows]), color="0.6", ls="--", label="persistence")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter("{x:.3g}")
    axes.set_xlabel("training trajectories")
    axes.set_ylabel("NRMSE on the test set")
