"""The table and the plot of the study: errors against the number of training trajectories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import mean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from matey.report.plots import COLOURS, PERSISTENCE, STYLE
from matey.studies.data_efficiency.scales import PEERS
from matey.studies.folder import Row
from matey.studies.physics import physics_text
from matey.studies.seeds import deviation, mean_and_deviation, quotient
from matey.studies.ticks import plain_ticks
from matey.text_table import text_table

COLOUR_OF_MODE = dict(zip(("prepost", "all", "lora", "head"), COLOURS, strict=False))
COLOUR_OF_PEER = dict(zip(PEERS, COLOURS[4:], strict=False))
COSTS = {"seconds": "cost (s)", "windows": "windows"}
LINES = {"pretrained": "-", "random": ":"} | dict.fromkeys(PEERS, "--")


def study_table(rows: Sequence[Row]) -> str:
    """Format NRMSE over persistence's (mean and deviation over the seeds), pretrained over random, costs and physics."""
    models = sorted(
        {(row["start"], row["mode"]) for row in rows}, key=lambda model: (model[0] in PEERS, model[1], model[0])
    )
    both = [mode for start, mode in models if start == "random" and ("pretrained", mode) in models]
    heads = [*(_named(*model) for model in models), *(f"pretrained / random, {mode}" for mode in both)]
    lines = []
    forecasts, sizes = dict.fromkeys(row["forecast"] for row in rows), sorted({row["trajectories"] for row in rows})
    for forecast, size in itertools.product(forecasts, sizes):
        alike = [row for row in rows if (row["forecast"], row["trajectories"]) == (forecast, size)]
        ratios = {
            model: {row["seed"]: row["ratio"] for row in alike if (row["start"], row["mode"]) == model}
            for model in models
        }
        cells = [mean_and_deviation(of_model.values()) for of_model in ratios.values()]
        cells += [quotient(ratios["pretrained", mode], ratios["random", mode]) for mode in both]
        lines.append([forecast, str(size), *cells])
    done = {
        (size, model): [row for row in rows if (row["trajectories"], row["start"], row["mode"]) == (size, *model)]
        for size, model in itertools.product(sizes, models)
    }
    for (key, text), size in itertools.product(COSTS.items(), sizes):
        means = [f"{mean(row[key] for row in own):.0f}" if (own := done[size, model]) else "-" for model in models]
        lines.append([text, str(size), *means, *[""] * len(both)])
    for size in sizes:
        counts = [str(len({row["seed"] for row in done[size, model]})) for model in models]
        lines.append(["seeds", str(size), *counts, *[""] * len(both)])
    errors = text_table(["forecast", "trajectories", *heads], lines, merge=1)
    return "\n\n".join(filter(None, [errors, physics_text(rows, _model)]))


def _model(row: Row) -> str:
    return f"{_named(row['start'], row['mode'])}, {row['trajectories']}"


def _named(start: str, mode: str) -> str:
    return start if start in PEERS else f"{start}, {mode}"


@matplotlib.rc_context(STYLE)
def study_figure(rows: Sequence[Row], system: str) -> Figure:
    """Draw the test error against the number of trajectories, a panel per forecast; bars are the deviation over seeds."""
    forecasts = list(dict.fromkeys(row["forecast"] for row in rows))
    across = min(len(forecasts), 2)
    down = -(-len(forecasts) // across)
    chart = Figure(figsize=(4.2 * across, 3.1 * down + 0.7), layout="constrained")
    grid = chart.subplots(down, across, squeeze=False, sharex=True)
    for axes, forecast in zip(grid.flat, forecasts, strict=False):
        _panel(axes, [row for row in rows if row["forecast"] == forecast])
        axes.set_title(f"{system}, {forecast}")
    for axes in grid.flat[len(forecasts) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("training trajectories")
    for axes in grid[:, 0]:
        axes.set_ylabel("NRMSE on the test set")
    plain_ticks(axes.yaxis for axes in grid.flat[: len(forecasts)])
    chart.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
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
            label=_named(start, mode),
            color={**COLOUR_OF_MODE, **COLOUR_OF_PEER}.get(start if start in PEERS else mode, "#777777"),
            ls=line,
            marker="o",
            ms=4,
            capsize=3,
        )
    axes.axhline(mean([row["persistence_nrmse"] for row in rows]), color=PERSISTENCE, ls="--", label="persistence")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
