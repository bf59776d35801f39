"""Tables and plots of studies."""

import math
import re

import pytest

from matey.studies.table import Column, Panel, errors_of, results_figure, results_table

COLUMNS = {"tokens": Column("tokens", "{:.0f}", 1e-3), "seconds": Column("step", "{:.1f} s")}


def rows_of(models, systems=("a", "b"), seeds=(0, 1)):
    """Rows of two systems, of which the second has twice the error, as the second seed has."""
    return [
        {"series": series, "label": label, "seed": seed, "system": system, "forecast": forecast}
        | {"ratio": error * (1 + seed) * 2**number * lead, "tokens": tokens, "seconds": tokens / 10e3 + seed}
        for series, label, error, tokens in models
        for seed in seeds
        for number, system in enumerate(systems)
        for forecast, lead in (("lead 1", 1), ("lead 5", 2))
    ]


ROWS = rows_of([("uniform", "16", 0.1, 10e3), ("uniform", "8", 0.05, 40e3)])


def cells(line):
    return re.split("  +", line)


def test_an_error_is_the_geometric_mean_over_the_systems_of_each_seed():
    own = [row for row in ROWS if row["label"] == "16" and row["forecast"] == "lead 1"]
    assert errors_of(own) == pytest.approx({0: math.sqrt(2) * 0.1, 1: 2 * math.sqrt(2) * 0.1})


def test_the_table_has_means_and_deviations_over_the_seeds():
    head, _, first, second = results_table(ROWS, COLUMNS).splitlines()
    assert head.split() == ["tokens", "step", "lead", "1", "lead", "5", "seeds"]
    assert cells(first) == ["uniform, 16", "10", "1.5 s", "0.212 ± 0.100", "0.424 ± 0.200", "2"]
    apart = results_table(ROWS, COLUMNS, by_system=True).splitlines()
    assert cells(apart[2])[3:5] == ["0.150 ± 0.071", "0.300 ± 0.141"] and "b, lead 5" in apart[0]
    lost = [{**row, "ratio": math.inf, "tokens": None} for row in ROWS[:8]]
    assert cells(results_table(lost, COLUMNS).splitlines()[2])[1:4] == ["-", "1.5 s", "diverged"]


def test_the_plot_shows_means_and_deviations_over_seeds():
    own = [row for row in ROWS if row["forecast"] == "lead 1"]
    panels = [Panel(own, "tokens", "kilotokens", "error"), Panel(own, "label", "cells", "tokens", "tokens")]
    first, second = results_figure([panels], COLUMNS).axes
    line, _, (bars,) = first.containers[0]
    assert list(line.get_xdata()) == pytest.approx([10, 40])
    assert list(line.get_ydata()) == pytest.approx([0.15 * 2**0.5, 0.075 * 2**0.5])
    assert [end for _, end in bars.get_segments()[0]] == pytest.approx([0.15 * 2**0.5 - 0.1, 0.15 * 2**0.5 + 0.1])
    assert list(second.containers[0][0].get_xdata()) == [8, 16]
