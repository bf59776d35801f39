"""The comparison's points, table and plot."""

import io
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from matey.evaluate.records import Record, write_records
from matey.report.png import to_png
from matey.studies import engine
from matey.studies.peers.points import Point, points_of, rows_of
from matey.studies.peers.table import LOOKS, equal_error_text, peers_figure, peers_table
from matey.studies.physics import COLUMNS

RATIOS = {"stencil": 0.4, "ResNet": 0.35, "small U": 0.45, "U-Net": 0.2, "FNO": 0.3}
RATIOS |= {"cells": 0.15, "MATEY per system": 0.1, "MATEY joint": 0.25}


def make_rows(budgets=(10,), ratios=RATIOS):
    return [
        {"model": model, "budget": budget, "seed": seed, "system": system, "forecast": forecast}
        | {"ratio": ratio * (0.9, 1.1)[seed] * 10 / budget, "persistence_nrmse": 0.5, "extrapolation_nrmse": 0.4}
        | {"seconds": budget + seed, "parameters": 1234}
        | dict.fromkeys(COLUMNS, float("nan"))
        | {"samples_per_second": 50.0, "forecast_seconds": 0.01 * (1 + ratio), "batch_seconds": float("nan")}
        for budget in budgets
        for seed in (0, 1)
        for model, ratio in ratios.items()
        for system in ("gas", "plasma")
        for forecast in ("lead 1", "rollout 10")
    ]


def errors_of(rows):
    """Return the lines of the table of errors, the first of all."""
    return peers_table(rows).split("\n\n")[0].splitlines()


def test_each_model_is_trained_on_each_system_and_matey_on_all_of_them_too():
    points = points_of(("gas", "plasma"), (110, 30), 3)
    assert len({point.name for point in points}) == len(points) == 3 * 2 * (7 * 2 + 1)
    assert [point.name for point in points[:15]] == [
        *(
            "stencil-gas-30-0",
            "stencil-plasma-30-0",
            "resnet-gas-30-0",
            "resnet-plasma-30-0",
            "smallu-gas-30-0",
            "smallu-plasma-30-0",
            "unet-gas-30-0",
            "unet-plasma-30-0",
            "fno-gas-30-0",
            "fno-plasma-30-0",
        ),
        *("cells-gas-30-0", "cells-plasma-30-0", "matey-gas-30-0", "matey-plasma-30-0", "matey-joint-30-0"),
    ]
    assert [point.budget for point in points[13:15]] == [30, 60]


def test_one_system_has_no_joint_training():
    assert [point.data for point in points_of(("gas",), (10,), 1)] == 7 * ["gas"]


def test_a_point_has_a_row_for_each_system_and_forecast_and_joint_costs_are_shared(tmp_path):
    records = [
        Record(system, field, kind, lead, {"nrmse": 0.1}, {"nrmse": 0.5}, 9, extrapolation_nrmse=0.4)
        for system in ("gas", "plasma")
        for field in ("density", "all")
        for kind, lead in (("lead", 1), ("rollout by 5", 1), ("rollout by 5", 2))
    ]
    write_records(records, tmp_path / "metrics.json")
    (tmp_path / "result.json").write_text(json.dumps({"seconds": 22.0, "steps": 7, "parameters": 5}))
    rows = rows_of(Point("MATEY", "joint", ("gas", "plasma"), 10, 0), tmp_path)
    assert [(row["system"], row["forecast"]) for row in rows] == [
        *(("gas", "lead 1"), ("gas", "rollout 2 by 5"), ("plasma", "lead 1"), ("plasma", "rollout 2 by 5"))
    ]
    assert {(row["model"], row["seconds"], row["ratio"]) for row in rows} == {("MATEY joint", 11.0, 0.2)}


def test_the_table_sets_matey_beside_the_best_peer_which_its_cells_are_not():
    lines = errors_of(make_rows())
    assert lines[2].split() == [
        *("gas", "lead", "1", "0.800", "0.400", "±", "0.057", "0.350", "±", "0.049"),
        *("0.450", "±", "0.064", "0.200", "±", "0.028"),
        *("0.300", "±", "0.042", "0.150", "±", "0.021", "0.100", "±", "0.014", "0.250", "±", "0.035"),
        *("0.50", "±", "0.00", "<=", "1", "1.25", "±", "0.00", ">", "1"),
    ]
    assert lines[3].split()[:2] == ["rollout", "10"]
    assert lines[-7].split() == ["cost", "gas", *8 * ["10.5", "s"]]
    assert lines[-6].split() == ["plasma", *8 * ["10.5", "s"]]
    assert lines[-5].split() == ["trained", "numbers", *8 * ["1,234"]]
    assert lines[-1].split() == ["seeds", *8 * ["2"]]


def test_speeds_stand_beside_that_of_the_fastest_peer():
    training, alone, together = (line.split() for line in errors_of(make_rows())[-4:-1])
    assert training == ["samples/s,", "training", *8 * ["50.000"], "1.00", "1.00"]
    assert alone == [
        *("ms", "a", "forecast", "14.000", "13.500", "14.500", "12.000", "13.000", "11.500"),
        *("11.000", "12.500"),
        "0.92",
        "1.04",
    ]
    assert together == ["ms,", "16", "at", "a", "time", *10 * ["-"]]


def test_the_table_is_of_the_largest_cost():
    assert errors_of(make_rows(budgets=(10, 100))) == errors_of(make_rows(budgets=(100,)))


def test_what_diverged_or_is_not_done_yet_is_said_and_is_not_the_best():
    lines = errors_of(make_rows(ratios={"stencil": float("inf"), "U-Net": 0.2, "MATEY joint": 0.1}))
    assert lines[2].split()[3:] == [
        *("0.800", "diverged", "-", "-", "0.200", "±", "0.028", "-", "-", "0.100", "±", "0.014"),
        *("0.50", "±", "0.00", "<=", "1"),
    ]
    assert lines[-7].split() == ["cost", "gas", "10.5", "s", "-", "-", "10.5", "s", "-", "-", "10.5", "s"]


def test_numbers_of_a_rollout_that_grew_and_of_a_single_seed_fit_their_columns():
    rows = [row for row in make_rows(ratios={**RATIOS, "stencil": 19722.4}) if row["seed"] == 0]
    lines = errors_of(rows)
    assert lines[2].split()[:6] == ["gas", "lead", "1", "0.800", "1.8e+04", "0.315"]
    assert len({len(line) for line in lines[:3]}) == 1


def test_the_plot_shows_error_against_cost_with_bars_over_seeds():
    figure = peers_figure(make_rows(budgets=(10, 100)), "CPU seconds")
    assert [axes.get_title() for axes in figure.axes] == ["lead 1", "rollout 10", "", ""]
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == ["gas", "", "plasma", ""]
    line, _, (across, along) = figure.axes[0].containers[0]
    assert list(line.get_xdata()) == [10.5, 100.5]
    assert list(line.get_ydata()) == pytest.approx([0.4, 0.04])
    assert along.get_segments()[0][:, 1] == pytest.approx([0.4 - 0.04 * 2**0.5, 0.4 + 0.04 * 2**0.5])
    assert figure.axes[0].get_yscale() == figure.axes[0].get_xscale() == "log"
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", *2 * ["CPU seconds per system"]]


def test_the_plot_tells_models_apart_and_has_persistence_where_it_is_near():
    figure = peers_figure(make_rows(budgets=(10, 100)), "CPU seconds")
    lines = [container[0] for container in figure.axes[0].containers]
    for look in (Line2D.get_color, Line2D.get_marker):
        assert len({look(line) for line in lines}) == len(RATIOS)
    of = {share: [{**row, "ratio": share * row["ratio"]} for row in make_rows()] for share in (0.2, 2)}
    tops = [peers_figure(rows, "CPU seconds").axes[0].get_ylim()[1] for rows in of.values()]
    assert tops[0] < 0.5 and tops[1] > 1


@pytest.mark.whole
def test_the_picture_is_small_and_keeps_the_colours_of_the_models():
    content = to_png(peers_figure(make_rows(budgets=(10, 100)), "CPU seconds"), engine.COLOURS)
    assert len(content) < 100_000
    picture = np.array(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float)
    for colour, _ in LOOKS:
        assert np.abs(picture - 255 * np.array(to_rgb(colour))).max(axis=2).min() < 12


def test_a_larger_budget_that_has_only_begun_hides_no_other():
    done = make_rows(budgets=(10, 100))
    begun = [row for row in make_rows(budgets=(300,)) if row["model"] in ("stencil", "ResNet")]
    assert errors_of([*done, *begun]) == errors_of(done) != errors_of(make_rows(budgets=(300,)))


def test_equal_errors_have_a_cost_between_budgets_or_none():
    """Errors fall with the cost here, so that a model of half the error takes half the cost."""
    lines = equal_error_text(make_rows(budgets=(10, 100)), 100).splitlines()
    assert lines[0].split()[-5:] == ["MATEY", "per", "system", "MATEY", "joint"]
    assert lines[2].split() == ["gas", "lead", "1", "U-Net", "0.020", "100.5", "s", "50.9", "s", ">", "100.5", "s"]
    assert "equal error" in peers_table(make_rows(budgets=(10, 100))) and "equal" not in peers_table(make_rows())


def test_equal_errors_are_those_of_the_seeds_that_all_models_have():
    rows = make_rows(budgets=(10, 100))
    for row in rows:
        row["ratio"] *= 3 if row["seed"] else 1
    begun = [row for row in rows if not (row["model"] == "U-Net" and row["budget"] == 100 and row["seed"])]
    of_one_seed = [row for row in rows if not row["seed"]]
    assert equal_error_text(begun, 100) == equal_error_text(of_one_seed, 100) != equal_error_text(rows, 100)


def test_physics_of_the_rollouts_of_each_model_stand_below_the_errors():
    rows = [{**row, "truth_mass": 0.0, "mass": 0.25, "correlation_time": 3.0} for row in make_rows()]
    *_, gas, plasma = peers_table(rows).split("\n\n")
    assert gas.startswith("gas, rollout 10") and plasma.startswith("plasma, rollout 10")
    assert ["U-Net", "3.000", "±", "0.000", "0.25"] in [line.split() for line in gas.splitlines()]
