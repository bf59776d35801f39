"""The plots of the studies that pretrain many models."""

import math
import random
from dataclasses import fields

import pytest

from matey.report.png import to_png
from matey.studies.engine import COLOURS, MOST_BYTES
from matey.studies.pretraining.costs import Costs
from matey.studies.pretraining.figure import growth_figure, study_figure
from matey.studies.pretraining.rows import study_table
from matey.studies.pretraining.tables import STUDIES
from tests.support.study_rows import grown

GUESSED = [(key, 1e8 if "bytes" in key or "operations" in key else 0.1) for key in (f.name for f in fields(Costs))]


def test_costs_are_drawn_against_cells_with_their_exponents():
    chart = growth_figure(grown(seeds=1), ("tokens", "step_seconds"))
    tokens, step, error, nothing = chart.axes
    line, *_ = tokens.containers[0]
    assert list(line.get_xdata()) == [64, 128, 256] and list(line.get_ydata()) == [
        3 * cells**2 for cells in (64, 128, 256)
    ]
    labels = [text.get_text() for text in tokens.get_legend().get_texts()]
    assert labels == ["a, 2.00", "b, 0.50", "c"] and error.get_title() == "lead 5: NRMSE / persistence"
    assert not nothing.axison and chart.axes[2].get_xlabel().startswith("cells along an axis")


def test_the_plot_has_a_panel_for_each_lead_and_cost_and_a_line_for_each_series(rows):
    chart = study_figure(rows, ("tokens", "step_seconds"))
    assert len(chart.axes) == 4
    panel = chart.axes[1]
    line, _, _ = panel.containers[0]
    assert list(line.get_xdata()) == pytest.approx([0.11, 0.41]) and list(line.get_ydata()) == pytest.approx(
        [0.12, 0.06]
    )
    assert len(panel.containers) == len({row["series"] for row in rows})


def test_every_series_of_the_largest_study_has_a_look_of_its_own():
    table = STUDIES["adaptivity"]().tables["laptop"]
    numbers = dict.fromkeys(("tokens", "ratio", "seed"), 1.0)
    rows = [
        {"series": c.series, "label": c.label, "case": c.name, "forecast": "lead 1", **numbers} for c in table.cases
    ]
    lines = [container[0] for container in study_figure(rows, ("tokens",)).axes[0].containers]
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == len({case.series for case in table.cases}) > 10
    criteria = {case.series for case in table.cases if " by " in case.series}
    colours = [
        c[0].get_color() for c in study_figure(rows, ("tokens",)).axes[0].containers if c.get_label() in criteria
    ]
    assert len(set(colours)) == len(criteria) == len(colours)


def test_a_series_of_one_model_is_named_with_what_it_is():
    table = STUDIES["fine_grid"]().tables["laptop"]
    numbers = dict.fromkeys(("tokens", "ratio", "seed"), 1.0)
    rows = [
        {"series": c.series, "label": c.label, "case": c.name, "forecast": "lead 1", **numbers} for c in table.cases
    ]
    _, labels = study_figure(rows, ("tokens",)).axes[0].get_legend_handles_labels()
    assert {"vit uniform", "vit uniform 16, for 360 steps", "vit mix by random, 130"} <= set(labels)


@pytest.mark.whole
@pytest.mark.parametrize("name", STUDIES)
def test_text_and_a_small_picture_are_made_whatever_points_are_done(name, rows):
    """A study writes them after each of its trainings, and pages of the repository show the picture as it is."""
    study, made = STUDIES[name](), random.Random(0)
    table = study.tables["laptop"]
    points = [(point, 2.0 ** made.uniform(-3, 3)) for point in table.points()]
    every = [
        row
        | {"series": point.case.series, "label": point.case.label, "case": point.case.name, "seed": point.seed}
        | {"ratio": made.gauss(0.9, 0.01) / size**0.1}
        | {key: cost * size * made.gauss(1, 0.02) for key, cost in (*GUESSED, ("message_calls", 9.0))}
        for point, size in points
        for row in rows[:4]
    ]
    draw = growth_figure if table.labels_grow else study_figure
    for done in (1, len(table.cases) - 1, len(table.cases) + 1, len(points)):
        study_table(every[: 4 * done], table)
    draw(every[:4], study.costs)
    assert len(to_png(draw(every, study.costs), COLOURS, MOST_BYTES)) <= MOST_BYTES
    study_table([{**row, "ratio": math.inf if row["seed"] else math.nan} for row in every], table)


def test_axes_have_a_few_plain_numbers(rows):
    chart = study_figure(
        [{**row, "peak_memory_bytes": 5e8 + 1e8 * row["step_seconds"]} for row in rows], ("peak_memory_bytes",)
    )
    chart.canvas.draw()
    texts = [label.get_text() for label in chart.axes[-1].get_xticklabels()]
    assert 2 <= len(texts) <= 6 and all(470 < float(text) < 520 for text in texts)
