"""The study of data efficiency: its table and its plot."""

import pytest

from matey.studies.data_efficiency.results import COLOUR_OF_MODE, COLOUR_OF_PEER, study_figure, study_table
from matey.studies.data_efficiency.scales import PEERS

ROWS = [
    {"start": start, "mode": "all", "trajectories": size, "seed": seed, "forecast": forecast, "system": "thermals"}
    | {"nrmse": (nrmse := 0.1 * (1 + seed) * (2 if start == "random" else 1) / size), "ratio": nrmse / 0.5}
    | {"persistence_nrmse": 0.5}
    | {"seconds": 70.0 + seed, "windows": 3200 * size}
    for start in ("pretrained", "random")
    for size in (1, 4)
    for seed in (0, 1)
    for forecast in ("lead 1", "lead 5")
]
QUOTIENT = ["pretrained", "/", "random,", "all"]


def test_the_table_has_means_over_persistence_and_what_pretraining_gains():
    head, _, *lines = study_table(ROWS).splitlines()
    assert head.split() == ["forecast", "trajectories", "pretrained,", "all", "random,", "all", *QUOTIENT]
    assert [line[:8].strip() for line in lines] == [
        *("lead 1", "", "lead 5", "", "cost (s)", "", "windows", "", "seeds", "")
    ]
    assert [line[8:].split()[0] for line in lines] == 5 * ["1", "4"]
    assert [line[8:].split()[1:] for line in lines[4:]] == [
        ["70", "70"],
        ["70", "70"],
        ["3200", "3200"],
        ["12800", "12800"],
        ["2", "2"],
        ["2", "2"],
    ]
    assert lines[0].split()[3:] == ["0.300", "±", "0.141", "0.600", "±", "0.283", "0.50", "±", "0.00"]


def test_peers_stand_beside_without_a_gain_of_their_own():
    peers = [{**row, "start": "stencil", "mode": "peer"} for row in ROWS if row["start"] == "random"]
    head, _, line, *_ = study_table(ROWS + peers).splitlines()
    assert head.split()[2:] == ["pretrained,", "all", "random,", "all", "stencil", *QUOTIENT]
    assert line.split()[-6:] == ["0.600", "±", "0.283", "0.50", "±", "0.00"]
    labels = [text.get_text() for text in study_figure(ROWS + peers, "thermals").legends[0].get_texts()]
    assert labels == ["persistence", "pretrained, all", "random, all", "stencil"]
    colours = [*COLOUR_OF_MODE.values(), *COLOUR_OF_PEER.values()]
    assert set(COLOUR_OF_PEER) == set(PEERS) and len(set(colours)) == len(colours)


def test_a_table_of_one_start_and_one_seed_has_neither_deviations_nor_gains():
    line, *costs = study_table(ROWS[:1]).splitlines()[2:]
    assert [line.split()[0] for line in costs] == ["cost", "windows", "seeds"]
    assert line.split() == ["lead", "1", "1", "0.200"]


def test_the_plot_shows_means_and_deviations_over_seeds_for_each_lead():
    chart = study_figure(ROWS, "thermals")
    assert [axes.get_title() for axes in chart.axes] == ["thermals, lead 1", "thermals, lead 5"]
    line, caps, (bars,) = chart.axes[0].containers[0]
    assert list(line.get_xdata()) == [1, 4]
    assert list(line.get_ydata()) == pytest.approx([0.15, 0.0375])
    assert [end for _, end in bars.get_segments()[0]] == pytest.approx([0.15 - 0.5**0.5 / 10, 0.15 + 0.5**0.5 / 10])


def test_four_forecasts_have_two_panels_in_a_row_and_a_legend_below_them():
    rows = [{**row, "forecast": f"{row['forecast']} {more}"} for row in ROWS for more in ("", "of means")]
    chart = study_figure(rows, "thermals")
    assert len(chart.axes) == 4 and chart.axes[0].get_gridspec().ncols == 2
    assert [text.get_text() for text in chart.legends[0].get_texts()] == [
        "persistence",
        "pretrained, all",
        "random, all",
    ]
