"""The study of data efficiency: its table and its plot."""

import pytest

from matey.studies.data_efficiency.results import study_figure, study_table

ROWS = [
    {"start": start, "mode": "all", "trajectories": size, "seed": seed, "forecast": forecast}
    | {"nrmse": 0.1 * (1 + seed) * (2 if start == "random" else 1) / size, "persistence_nrmse": 0.5}
    for start in ("pretrained", "random")
    for size in (1, 4)
    for seed in (0, 1)
    for forecast in ("lead 1", "rollout 10 by 5")
]


def test_the_table_has_means_over_persistence_and_what_pretraining_gains():
    head, _, *lines = study_table(ROWS).splitlines()
    assert head.split() == ["forecast", "trajectories", "pretrained,", "all", "random,", "all", "gain,", "all"]
    assert [line.split("  ")[0] for line in lines] == ["lead 1", "lead 1", "rollout 10 by 5", "rollout 10 by 5"]
    assert lines[0].split()[3:] == ["0.300", "±", "0.141", "0.600", "±", "0.283", "0.50", "±", "0.33"]


def test_a_table_of_one_start_and_one_seed_has_neither_deviations_nor_gains():
    (line,) = study_table(ROWS[:1]).splitlines()[2:]
    assert line.split() == ["lead", "1", "1", "0.200"]


def test_the_plot_shows_means_and_deviations_over_seeds_for_each_lead():
    chart = study_figure(ROWS, "thermals")
    assert [axes.get_title() for axes in chart.axes] == ["thermals, lead 1", "thermals, rollout 10 by 5"]
    line, caps, (bars,) = chart.axes[0].containers[0]
    assert list(line.get_xdata()) == [1, 4]
    assert list(line.get_ydata()) == pytest.approx([0.15, 0.0375])
    assert [end for _, end in bars.get_segments()[0]] == pytest.approx([0.15 - 0.5**0.5 / 10, 0.15 + 0.5**0.5 / 10])
