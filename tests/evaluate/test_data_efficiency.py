"""The study of data efficiency: its points, their scores, and the plot."""

import json

import pytest

from matey.evaluate.data_efficiency import Point, points_of, scores, study_figure


def test_points_from_pretrained_weights_come_first_and_each_has_a_name_of_its_own():
    points = points_of(["random", "pretrained"], ["prepost", "all"], [1, 6], 3)
    assert len({point.name for point in points}) == len(points) == 24
    assert [point.start for point in points] == ["pretrained"] * 12 + ["random"] * 12
    assert points[0].name == "pretrained-prepost-1-0"


def test_a_point_has_a_row_for_each_lead_over_all_fields(tmp_path):
    record = {"field": "all", "kind": "lead", "lead": 1, "nrmse": 0.1, "persistence_nrmse": 0.2, "num_windows": 9}
    others = [{**record, "field": "density"}, {**record, "kind": "rollout"}, {**record, "lead": 50, "nrmse": 0.4}]
    (tmp_path / "metrics.json").write_text(json.dumps([record, *others]))
    rows = scores(Point("random", "all", 6, 2), tmp_path / "metrics.json")
    assert [(row["lead"], row["nrmse"]) for row in rows] == [(1, 0.1), (50, 0.4)]
    assert rows[0]["trajectories"] == 6 and rows[0]["seed"] == 2


def test_the_plot_shows_means_and_deviations_over_seeds_for_each_lead():
    rows = [
        {"start": start, "mode": "all", "trajectories": size, "seed": seed, "lead": lead}
        | {"nrmse": 0.1 * (1 + seed) / size, "persistence_nrmse": 0.5}
        for start in ("pretrained", "random")
        for size in (1, 4)
        for seed in (0, 1)
        for lead in (1, 5)
    ]
    chart = study_figure(rows, "thermals")
    assert [axes.get_title() for axes in chart.axes] == ["thermals, lead 1", "thermals, lead 5"]
    line, caps, (bars,) = chart.axes[0].containers[0]
    assert list(line.get_xdata()) == [1, 4]
    assert list(line.get_ydata()) == pytest.approx([0.15, 0.0375])
    assert [end for _, end in bars.get_segments()[0]] == pytest.approx([0.1, 0.2])
