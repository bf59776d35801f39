"""Tables and plots of studies."""

import math
import re
import warnings

import pytest
from matplotlib.figure import Figure

from matey.studies.table import (
    Cost,
    Panel,
    errors_figure,
    errors_of,
    errors_table,
    exponents,
    plain_ticks,
    quotients_table,
)

COSTS = {"tokens": Cost("tokens", "{:.0f}"), "seconds": Cost("step", "{:.1f} s", is_compared=True)}


def rows_of(models, systems=("a", "b"), seeds=(0, 1)):
    """Rows of two systems, of which the second has twice the error, as the second seed has."""
    return [
        {"series": series, "label": label, "seed": seed, "system": system, "forecast": forecast}
        | {"ratio": error * (1 + seed) * 2**number * lead, "tokens": tokens, "seconds": tokens / 10 + seed}
        for series, label, error, tokens in models
        for seed in seeds
        for number, system in enumerate(systems)
        for forecast, lead in (("lead 1", 1), ("lead 5", 2))
    ]


ROWS = rows_of([("uniform", "16", 0.1, 10), ("uniform", "8", 0.05, 40)])


def cells(line):
    return re.split("  +", line)


def test_an_error_is_the_geometric_mean_over_the_systems_of_each_seed():
    own = [row for row in ROWS if row["label"] == "16" and row["forecast"] == "lead 1"]
    assert errors_of(own) == pytest.approx({0: math.sqrt(2) * 0.1, 1: 2 * math.sqrt(2) * 0.1})


def test_the_table_has_means_and_deviations_over_the_seeds():
    head, _, first, second = errors_table(ROWS, COSTS).splitlines()
    assert head.split() == ["tokens", "step", "lead", "1", "lead", "5", "seeds"]
    assert cells(first) == ["uniform, 16", "10", "1.5 s", "0.212 ± 0.100", "0.424 ± 0.200", "2"]
    apart = errors_table(ROWS, COSTS, by_system=True).splitlines()
    assert cells(apart[2])[3:5] == ["0.150 ± 0.071", "0.300 ± 0.141"] and "b, lead 5" in apart[0]
    alone = errors_table([{**row, "ratio": math.inf} for row in ROWS[:8]], COSTS)
    assert "diverged" in alone


def test_a_quotient_is_of_the_seeds_that_both_models_have():
    """The second seed has twice the error of the first, with every model: quotients are of each seed, and so alike."""
    pair = [("uniform, 8", "uniform, 16")]
    head, _, line = quotients_table(ROWS, pair, COSTS).splitlines()
    assert head.split() == ["over", "lead", "1", "lead", "5", "step"]
    assert cells(line) == ["uniform, 16", "uniform, 8", "0.50 ± 0.00", "0.50 ± 0.00", "3.25 ± 1.06"]
    fewer = [row for row in ROWS if row["label"] == "8" or row["seed"] == 0]
    assert cells(quotients_table(fewer, pair, COSTS).splitlines()[2])[2:] == ["0.50", "0.50", "4.00"]
    assert quotients_table(ROWS, [], COSTS) == ""


def test_the_exponent_of_a_line_is_that_of_its_power_law():
    rows = rows_of([("a", str(cells), 0.1, 3 * cells**2) for cells in (64, 128, 256)])
    assert exponents(rows, "tokens") == pytest.approx({0: 2, 1: 2})
    fewer = [row for row in rows if row["seed"] == 0 or row["label"] != "256"]
    assert exponents(fewer, "tokens") == pytest.approx({0: 2})
    assert exponents(rows_of([("a", "64", 0.1, 3)]), "tokens") == {}


def test_the_plot_shows_means_and_deviations_over_seeds():
    own = [row for row in ROWS if row["forecast"] == "lead 1"]
    panel = Panel(own, "tokens", "kilotokens", "error", x_factor=1e-3)
    figure = errors_figure([[panel, Panel(own, "label", "cells", "tokens", "tokens")]])
    first, second = figure.axes
    line, _, (bars,) = first.containers[0]
    assert list(line.get_xdata()) == pytest.approx([0.01, 0.04])
    assert list(line.get_ydata()) == pytest.approx([0.15 * 2**0.5, 0.075 * 2**0.5])
    assert [end for _, end in bars.get_segments()[0]] == pytest.approx([0.15 * 2**0.5 - 0.1, 0.15 * 2**0.5 + 0.1])
    assert list(second.containers[0][0].get_xdata()) == [8, 16]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        pytest.param([0.012, 9.0], [0.01, 0.1, 1, 10], id="three-decades"),
        pytest.param([0.9, 11.0], [1, 2, 5, 10], id="one-decade"),
        pytest.param([256.0], [200, 300, 400, 500], id="one-value"),
    ],
)
def test_panels_that_share_axes_show_plain_numbers_within_their_limits(values, numbers):
    figure = Figure(layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for axes in panels.flat:
        axes.errorbar(values, values, [0.0] * len(values))
        axes.set(xscale="log", yscale="log")
    axis = panels[-1, 0].xaxis
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain_ticks([*(axes.xaxis for axes in panels[-1]), *(axes.yaxis for axes in panels[:, 0])])
        figure.draw_without_rendering()
    low, high = axis.get_view_interval()
    assert [number for number in axis.get_majorticklocs() if low <= number <= high] == pytest.approx(numbers)
