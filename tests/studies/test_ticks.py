"""Tests of the numbers on logarithmic axes."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.figure import Figure

from matey.studies.ticks import plain_ticks


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        pytest.param([0.012, 9.0], [0.01, 0.1, 1, 10], id="three-decades"),
        pytest.param([1024, 65536], [1000, 3000, 10000, 30000], id="two-decades"),
        pytest.param([0.9, 11.0], [1, 2, 5, 10], id="one-decade"),
        pytest.param([256.0, 300.0], [255, 270, 285, 300], id="few-round-numbers"),
        pytest.param([256.0], [200, 300, 400, 500], id="one-value"),
    ],
)
def test_panels_that_share_axes_show_plain_numbers_within_their_limits(
    values: list[float], numbers: list[float]
) -> None:
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
    assert low < min(values) <= max(values) < high
    assert [number for number in axis.get_majorticklocs() if low <= number <= high] == pytest.approx(numbers)


def test_large_numbers_are_written_out():
    axes = Figure().subplots()
    axes.plot([1024, 65536], [1, 2])
    axes.set(xscale="log")
    plain_ticks([axes.xaxis])
    assert axes.xaxis.get_major_formatter()(65536) == "65,536"


def test_axes_on_which_nothing_is_drawn_are_left_alone():
    axes = Figure().subplots()
    axes.plot([float("nan")], [float("nan")])
    axes.set(xscale="log", yscale="log", xlim=(-0.05, 0.05))
    plain_ticks([axes.xaxis, axes.yaxis])
