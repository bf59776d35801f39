"""The table and the plot of a comparison: NRMSE over persistence's, mean and deviation over seeds, and the best model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matey.peers.kinds import PEERS
from matey.report.plots import ALL_SYSTEMS, COLOURS, PERSISTENCE, STYLE
from matey.studies.equal_error import cost_text
from matey.studies.folder import Row
from matey.studies.peers.points import CELLS, MATEY
from matey.studies.physics import physics_text
from matey.studies.seeds import OfSeeds, deviation, quotient
from matey.studies.ticks import plain_ticks
from matey.text_table import text_table

OWN = (f"{MATEY} per system", f"{MATEY} joint")
OTHERS = (*PEERS, CELLS)
LOOKS = tuple(
    zip((*(COLOURS[number] for number in (4, 5, 6, 2, 3)), ALL_SYSTEMS, *COLOURS[1::-1]), "s^hDv*oP", strict=True)
)
"""Colour and marker of each model: strong colours for MATEY."""

NEAR_PERSISTENCE = 0.5  # ratio to persistence above which a panel includes persistence's own line
SPEEDS = (
    ("samples_per_second", "samples/s, training", 1.0, True),
    ("forecast_seconds", "ms a forecast", 1e3, False),
    ("batch_seconds", "ms, 16 at a time", 1e3, False),
)
"""Measures of each model's speed: name, heading, factor to the unit shown, and whether more is better."""


def peers_table(rows: Sequence[Row]) -> str:
    """Format, for one budget, NRMSE over that of persistence, MATEY's over that of the best peer, and physics.

    It is the largest budget that most models have, so that one which was begun, and not finished, hides no other.
    At a quotient of 1 or below, marked by ``<=``, MATEY is at least as good as the best peer on that system and forecast;
    with several seeds, the quotient's deviation tells whether chance explains it. Speeds are over the fastest peer's.
    With several budgets, the text also has the cost at which MATEY reaches the best peer's error.
    """
    budget = fullest_budget(rows)
    rows, all_rows = [row for row in rows if row["budget"] == budget], rows
    own = [label for label in OWN if any(row["model"] == label for row in rows)]
    columns = [*OTHERS, *own]
    heads = ["extrapolation", *columns, *(f"{label.removeprefix(MATEY + ' ')}/best" for label in own)]
    lines = []
    for system, forecast in dict.fromkeys((row["system"], row["forecast"]) for row in rows):
        alike = [row for row in rows if (row["system"], row["forecast"]) == (system, forecast)]
        ratios: dict[str, OfSeeds] = {
            label: {row["seed"]: row["ratio"] for row in alike if row["model"] == label} for label in columns
        }
        finite = [ratios[label] for label in PEERS if math.isfinite(mean_of(ratios[label].values()))]
        best = min(finite, key=lambda of_peer: mean_of(of_peer.values()), default={})
        extrapolated = alike[0]["extrapolation_nrmse"] / alike[0]["persistence_nrmse"]
        cells = [_number(extrapolated), *(_ratio_text([*ratios[label].values()]) for label in columns)]
        cells += [_verdict(ratios[label], best) for label in own]
        lines.append([system, forecast, *cells])
    done = [[row for row in rows if row["model"] == label] for label in columns]
    costs = [_cost_line(system, done, len(own)) for system in dict.fromkeys(row["system"] for row in rows)]
    sizes = [f"{max(row['parameters'] for row in of_model):,}" if of_model else "-" for of_model in done]
    lines += [*costs, ["trained numbers", "", "", *sizes, *[""] * len(own)]]
    lines += [_speed_line(done, *speed) for speed in SPEEDS]
    lines += [["seeds", "", "", *(str(len({row["seed"] for row in of_model})) for of_model in done), *[""] * len(own)]]
    errors = text_table(["NRMSE / persistence", "", *heads], lines, num_text=2, merge=1)
    of_equal_error = equal_error_text(all_rows, budget) if len({row["budget"] for row in all_rows}) > 1 else ""
    return "\n\n".join(filter(None, [errors, of_equal_error, physics_text(rows, lambda row: str(row["model"]))]))


def fullest_budget(rows: Sequence[Row]) -> float:
    """Return the budget at which most models are done, each on its systems; of equals, the largest."""
    done: dict[float, set[tuple[str, str]]] = {}
    for row in rows:
        done.setdefault(row["budget"], set()).add((row["model"], row["system"]))
    return max(done, key=lambda budget: (len(done[budget]), budget))


def equal_error_text(rows: Sequence[Row], budget: float) -> str:
    """Format the training cost at which MATEY reaches the best peer's error at a budget, with that peer's name.

    Means are over the seeds that all models have at all their budgets.
    """
    own = [label for label in OWN if any(row["model"] == label for row in rows)]
    lines = []
    for system, forecast in dict.fromkeys((row["system"], row["forecast"]) for row in rows):
        alike = [row for row in rows if (row["system"], row["forecast"]) == (system, forecast)]
        seeds: dict[tuple[str, float], set[int]] = {}
        for row in alike:
            seeds.setdefault((row["model"], row["budget"]), set()).add(row["seed"])
        common = set.intersection(*seeds.values())
        alike = [row for row in alike if row["seed"] in common]
        curves = {label: _curve([row for row in alike if row["model"] == label]) for label in (*OTHERS, *own)}
        ends = {label: point for label in PEERS for point in curves[label] if point[0] == budget}
        if ends:
            best = min(ends, key=lambda label: ends[label][2])
            _, seconds, error = ends[best]
            cells = [cost_text([point[1:] for point in curves[label]], error, "{:.1f} s".format) for label in own]
            lines.append([system, forecast, best, _number(error), f"{seconds:.1f} s", *cells])
    head = ["equal error", "", "best peer", "its error", "cost", *own]
    return text_table(head, lines, num_text=3, merge=1) if lines else ""


def _curve(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Return budget, mean cost and mean error of a model at each budget, smallest first, without diverged runs."""
    groups = [[row for row in rows if row["budget"] == budget] for budget in sorted({row["budget"] for row in rows})]
    points = [
        (of[0]["budget"], mean_of([r["seconds"] for r in of]), mean_of([r["ratio"] for r in of])) for of in groups
    ]
    return [point for point in points if math.isfinite(point[2])]


def _cost_line(system: str, rows_by_model: Sequence[Sequence[Row]], num_own: int) -> list[str]:
    """Return the line with each model's cost of training on a system."""
    seconds = [mean_of([row["seconds"] for row in rows if row["system"] == system]) for rows in rows_by_model]
    return ["cost", system, "", *(f"{mean:.1f} s" if math.isfinite(mean) else "-" for mean in seconds), *[""] * num_own]


def _speed_line(
    rows_by_model: Sequence[Sequence[Row]], key: str, text: str, scale: float, largest_is_best: bool
) -> list[str]:
    """Return the line of one measure of speed: each model's, and MATEY's over the best peer's."""
    means = [scale * mean_of([row[key] for row in rows]) for rows in rows_by_model]
    peers = sorted((mean for mean in means[: len(PEERS)] if math.isfinite(mean)), reverse=largest_is_best)
    cells = [_number(mean) if math.isfinite(mean) else "-" for mean in means]
    cells += [f"{mean / peers[0]:.2f}" if peers and math.isfinite(mean) else "-" for mean in means[len(OTHERS) :]]
    return [text, "", "", *cells]


@matplotlib.rc_context(STYLE)
def peers_figure(rows: Sequence[Row], unit: str) -> Figure:
    """Draw NRMSE over that of persistence against the cost per system: a row of panels per system, a column per forecast.

    Points are means over seeds, bars their deviations.

    Args:
        rows: rows of the points done so far.
        unit: unit of the cost, such as ``CPU seconds``.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    forecasts = list(dict.fromkeys(row["forecast"] for row in rows))
    figure = Figure(figsize=(2.2 * len(forecasts) + 0.4, 2.1 * len(systems) + 0.8), layout="constrained")
    grid = figure.subplots(len(systems), len(forecasts), squeeze=False, sharex=True)
    for line, system in zip(grid, systems, strict=True):
        for axes, forecast in zip(line, forecasts, strict=True):
            _panel(axes, [row for row in rows if (row["system"], row["forecast"]) == (system, forecast)])
        line[0].set_ylabel(f"{system}\nNRMSE / persistence")
    for axes, forecast in zip(grid[0], forecasts, strict=True):
        axes.set_title(forecast)
    for axes in grid[-1]:
        axes.set_xlabel(f"{unit} per system")
    plain_ticks([axes.xaxis for axes in grid[-1]] + [axes.yaxis for axes in grid.flat])
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(OTHERS) + len(OWN))
    return figure


def mean_of(values: Iterable[float]) -> float:
    """Return the mean; NaN for no values, or if a run diverged."""
    known = list(values)
    return float(np.mean(known)) if known else math.nan


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.2g}"


def _ratio_text(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if not math.isfinite(mean_of(values)):
        return "diverged"
    return f"{_number(mean_of(values))} ± {_number(deviation(values))}" if len(values) > 1 else _number(values[0])


def _verdict(own: OfSeeds, best: OfSeeds) -> str:
    share = mean_of(own[seed] / best[seed] for seed in own if seed in best)
    if not math.isfinite(share):
        return "-"
    return f"{quotient(own, best)} {'<=' if share <= 1 else '> '} 1"


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    for label, (colour, marker) in zip((*OTHERS, *OWN), LOOKS, strict=True):
        own = [row for row in rows if row["model"] == label]
        budgets = sorted({row["budget"] for row in own})
        groups = [[row for row in own if row["budget"] == budget] for budget in budgets]
        cost, error = ([[row[key] for row in group] for group in groups] for key in ("seconds", "ratio"))
        axes.errorbar(
            [np.mean(values) for values in cost],
            [np.mean(values) for values in error],
            yerr=[deviation(values) for values in error],
            xerr=[deviation(values) for values in cost],
            label=label,
            color=colour,
            ls="-" if label in OWN else "--",
            lw=1.8 if label in OWN else 1.1,
            marker=marker,
            ms=5 if label in OWN else 4,
            capsize=2,
            zorder=3 if label in OWN else 2,
        )
    axes.set(xscale="log", yscale="log")
    if axes.get_ylim()[1] > NEAR_PERSISTENCE:  # otherwise the line would leave the models no room
        axes.axhline(1, color=PERSISTENCE, ls=(0, (4, 3)), lw=1)
