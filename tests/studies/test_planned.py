"""What studies say of their costs before they start."""

from pathlib import Path

import pytest

from matey.config import ConfigError
from matey.studies.data_efficiency.points import points_of
from matey.studies.data_efficiency.running import DataEfficiencyStudy
from matey.studies.peers.points import points_of as comparisons
from matey.studies.peers.running import Comparison
from matey.studies.pretraining.running import COSTS, PretrainingStudy
from matey.studies.pretraining.tables import STUDIES
from tests.support.paths import ROOT

ENGINE = str(ROOT / "ds_configs" / "frontier_zero1.json")


def study(name, scale, out, seeds=None, machine="frontier", ranks=None, engine=ENGINE, settings=()):
    question = STUDIES[name]()
    table = question.tables[scale]
    points = [
        point
        for point in table.points(seeds)
        if point.case.series in ("vit", "uniform 8", "vit uniform", "avit uniform")
    ]
    how = {"deepspeed_config": engine, "machine": machine, "ranks": ranks or table.ranks, "settings": settings}
    return PretrainingStudy(ROOT, out, table, points, (name, scale), question.costs, **how)


def test_a_study_at_the_papers_scale_says_what_each_model_and_all_cost(tmp_path):
    head, columns, _, *lines, last = study("schemes", "paper", tmp_path).plan().splitlines()
    assert head == "On frontier, 736 ranks on 92 nodes, 1472 samples a step:"
    assert columns.split()[:3] == ["trainings", "weights", "tokens"]
    assert [line.split()[:2] for line in lines] == [["vit-Ti", "3"], ["vit-S", "3"], ["vit-B", "3"]]
    total = sum(float(line.split()[-1].replace(",", "")) for line in lines)
    assert last.startswith("9 trainings, ") and "since the data is not there yet" in last
    assert float(last.split()[2].replace(",", "")) == pytest.approx(total, rel=0.01) and total > 100


def test_what_is_done_costs_nothing_any_more(tmp_path):
    some = study("scaling_of_tokens", "tiny", tmp_path, machine="cpu")
    assert "2 trainings, " in some.plan()
    for point in some.points:
        assert not some.is_done(point)
        some.folder(point).mkdir(parents=True)
        (some.folder(point) / COSTS).touch()
    assert some.plan() == "Nothing is left to train."


@pytest.mark.whole
def test_a_step_on_one_thread_is_not_planned_for_all_cores(tmp_path):
    def seconds(threads):
        how = {"seeds": 1, "machine": "cpu", "settings": (f"parallel.threads={threads}",)}
        line = study("fine_grid", "laptop", tmp_path, **how).plan().splitlines()[3]
        return float(line.partition(" s ")[0].split()[-1])

    assert 1.5 * seconds(2) < seconds(1) < 2.2 * seconds(2)


def test_models_that_do_not_fit_and_machines_that_are_too_small_are_said(tmp_path):
    float32 = ENGINE.replace("frontier_", "")
    text = study("schemes", "paper", tmp_path, seeds=1, machine="cpu", ranks=1, engine=float32).plan()
    assert text.splitlines()[-1] == "More memory than there is: vit-B."
    with pytest.raises(ConfigError, match="moon"):
        study("schemes", "paper", tmp_path, machine="moon").plan()
    with pytest.raises(ConfigError, match="125000 nodes of Frontier"):
        study("schemes", "paper", tmp_path, ranks=10**6).plan()


def test_fine_tunings_are_planned_with_the_pretrained_models_network(tmp_path):
    points = points_of(["pretrained", "stencil"], ["prepost"], [1, 96], 3)
    how = {"deepspeed_config": ENGINE, "machine": "frontier", "ranks": 64}
    box = str(ROOT / "models" / "matey-micro")
    of = DataEfficiencyStudy(tmp_path, tmp_path / "out", "thermals", "paper", points, box, **how)
    head, _, _, line, last, peers = of.plan().splitlines()
    assert "64 ranks on 8 nodes, 256 samples" in head and line.split()[:3] == ["prepost", "6", "0.79"]
    assert last.startswith("6 trainings, ") and peers == "And 6 peers, 6 hours on one CPU or GPU."


def test_a_comparison_costs_what_it_gives_to_its_models(tmp_path):
    points = comparisons(("gas", "plasma"), [30, 110], 3)
    run = Comparison(ROOT, tmp_path, Path("demo.yaml"), (), {}, "cpu", points)
    hours = 3 * (30 + 110) * (7 * 2 + 2) / 3600
    assert run.plan() == f"90 trainings, {hours:.3g} hours of CPU time, without their starts and scores."
