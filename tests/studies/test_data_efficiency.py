"""The study of data efficiency."""

from matey.config import load_config
from matey.studies.data_efficiency import DataEfficiencyStudy, points_of
from matey.studies.trainings import seconds_of
from tests.support.paths import ROOT


def test_a_peer_is_trained_once_on_each_number_of_trajectories_whatever_the_modes():
    points = points_of(["stencil", "random", "pretrained"], ["prepost", "all"], [1, 6], 2)
    assert [point.start for point in points] == ["pretrained"] * 8 + ["random"] * 8 + ["stencil"] * 4
    assert [point.name for point in points[16:18]] == ["stencil-peer-1-0", "stencil-peer-6-0"]


def test_the_cost_of_a_run_is_that_of_all_its_steps(tmp_path):
    steps = ((1, 0.2), (2, 0.25), (200, 0.6))
    log = [f'{{"step": {step}, "cpu_seconds": {seconds}, "seconds": 0.1}}\n' for step, seconds in steps]
    (tmp_path / "metrics.jsonl").write_text("".join(log))
    assert abs(seconds_of(tmp_path) - 200 * 0.35) < 1e-9


def test_fine_tunings_are_planned_with_the_pretrained_models_network(tmp_path):
    points = points_of(["pretrained", "stencil"], ["prepost"], [1, 96], 3)
    how = {"deepspeed_config": str(ROOT / "ds_configs" / "frontier_zero1.json"), "machine": "frontier", "ranks": 64}
    box = str(ROOT / "models" / "matey-micro")
    about = {"system": "thermals", "scale": "paper", "pretrained": box}
    study = DataEfficiencyStudy(work=tmp_path, out=tmp_path / "out", points=points, **about, **how)
    head, _, _, line, last, peers = study.plan().splitlines()
    assert "64 ranks on 8 nodes, 256 samples" in head and line.split()[:2] == ["prepost", "6"]
    assert last.startswith("6 trainings, ") and peers == "And 6 peers, 6 hours on one CPU or GPU."
    assert load_config(ROOT / study.size.config).data.lead_max == study.run_config(points[0]).data.lead_max
