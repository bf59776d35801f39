"""The table and the plot of the study: errors against the number of training trajectories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from matey.report.plots import COLOURS
from matey.studies.folder import Row, deviation, mean_and_deviation
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
    for lead, size in sorted({(row["lead"], row["trajectories"]) for row in rows}):
        alike = [row for row in rows if (row["lead"], row["trajectories"]) == (lead, size)]
        ratios = {
            (start, mode): [
                row["nrmse"] / row["persistence_nrmse"] for row in alike if (row["start"], row["mode"]) == (start, mode)
            ]
            for mode in modes
            for start in starts
        }
        cells = [mean_and_deviation(values) for values in ratios.values()]
        if len(starts) > 1:
            cells += [_share(ratios["pretrained", mode], ratios["random", mode]) for mode in modes]
        lines.append([str(lead), str(size), *cells])
    return text_table(["lead", "trajectories", *heads], lines, num_text=0)


def _share(pretrained: Sequence[float], random: Sequence[float]) -> str:
    """Return the quotient of two means, with its deviation where there are seeds: relative deviations add as squares."""
    if not (pretrained and random):
        return "-"
    share = mean(pretrained) / mean(random)
    if min(len(pretrained), len(random)) < 2:
        return f"{share:.2f}"
    return f"{share:.2f} ± {share * math.hypot(*(deviation(values) / mean(values) for values in (pretrained, random))):.2f}"


def study_figure(rows: Sequence[Row], system: str) -> Figure:
    """Draw the test error against the number of trajectories, a panel a lead; bars are the deviation over seeds."""
    leads = sorted({row["lead"] for row in rows})
    chart = Figure(figsize=(4.6 * len(leads) + 1.6, 3.8), layout="constrained")
    for axes, lead in zip(chart.subplots(1, len(leads), squeeze=False)[0], leads, strict=True):
        _panel(axes, [row for row in rows if row["lead"] == lead])
        axes.set_title(f"{system}, lead {lead}", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return chart


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
