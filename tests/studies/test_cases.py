"""What each study trains, plans and measures."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from matey.config import ConfigError, load_config
from matey.data.splits import split_groups
from matey.peers.networks import PEERS
from matey.studies import data_efficiency, peers, scaling
from matey.studies.cases import (
    COMPARED,
    FINETUNE_SCALES,
    PRETRAININGS,
    StudyError,
    check_overrides,
    stated_by,
)
from matey.studies.data_efficiency import DataEfficiencyStudy
from matey.studies.engine import run_study, write_jobs
from matey.studies.peers import Comparison
from matey.studies.pretraining import PretrainingStudy, points_of
from matey.studies.scaling import COUNTED_STEPS, Point, ScalingStudy, batch_of
from matey.studies.trainings import seconds_of
from tests.support.laws import law
from tests.support.paths import ROOT
from tests.support.programs import stand_in

SCALES = [(name, scale) for name, study in PRETRAININGS.items() for scale in study.scales]
SMALLEST = [(name, next(iter(study.scales))) for name, study in PRETRAININGS.items()]


def study_of(name, scale, settings=(), seeds=1):
    points = points_of(PRETRAININGS[name].scales[scale], seeds)
    return PretrainingStudy(work=ROOT, out=Path("out"), name=name, scale=scale, points=points, settings=settings)


@law(("name", "scale"), SCALES, quick=SMALLEST)
def test_every_point_is_a_run_of_its_own_that_the_schema_accepts(name, scale):
    study = study_of(name, scale, ("train.micro_batch=3",), seeds=2)
    size, points = study.size, study.points
    assert len({point.name for point in points}) == len(points) == 2 * len(size.cases)
    stated = set()
    for point in points:
        run, data = study.run_config(point), size.data
        assert (run.train.seed, run.train.micro_batch) == (point.seed, 3)
        assert len(run.data.sets) == len(data) or not data
        assert 2 * run.train.warmup_steps <= run.train.steps
        if run.model.scheme != "vit":  # it attends along time
            assert all(run.data.history // frames > 1 for frames, *_ in run.tokens.patches)
        sections = (run.model, run.tokens, run.data)
        stated.add((run.train.steps, *(section.model_dump_json() for section in sections)))
    assert len(stated) == len(size.cases)


def test_adaptive_and_uniform_tokens_differ_in_nothing_else():
    study = study_of("adaptivity", "laptop")
    runs = [study.run_config(point) for point in study.points if point.case.series.startswith("vit")]
    assert len({run.model_copy(update={"tokens": None, "output": None}).model_dump_json() for run in runs}) == 1


@pytest.mark.parametrize(("system", "name"), [(s, n) for s, scales in FINETUNE_SCALES.items() for n in scales])
def test_simulated_data_holds_enough_to_train_on_and_costs_are_of_one_thread(system, name):
    scale = FINETUNE_SCALES[system][name]
    run = load_config(ROOT / scale.config, scale.settings)
    for data in scale.data:
        train = split_groups([[n] for n in range(data.trajectories)], run.data.split, run.data.split_seed).train
        assert len(train) >= max(scale.sizes) and run.parallel.threads == 1


@pytest.mark.parametrize("setting", ["model.scheme=avit", "tokens.refine = 0.9", "tokens={refine: 0.9}"])
def test_what_a_model_states_itself_is_not_overridden(setting):
    cases = PRETRAININGS["adaptivity"].scales["tiny"].cases
    with pytest.raises(StudyError, match="would not be what the name says; leave it out, or choose other --models"):
        check_overrides([setting], stated_by(cases))
    check_overrides(["model.size=S", "train.steps=3", "tokens.refined=1"], stated_by(cases))


def test_the_cost_of_a_run_is_that_of_all_its_steps(tmp_path):
    steps = ((1, 0.2), (2, 0.25), (200, 0.6))
    log = [f'{{"step": {step}, "cpu_seconds": {seconds}, "seconds": 0.1}}\n' for step, seconds in steps]
    (tmp_path / "metrics.jsonl").write_text("".join(log))
    assert abs(seconds_of(tmp_path) - 200 * 0.35) < 1e-9


def test_fine_tunings_are_planned_with_the_pretrained_models_network(tmp_path):
    points = data_efficiency.points_of(["pretrained", "stencil"], ["prepost"], [1, 96], 3)
    how = {"deepspeed_config": str(ROOT / "ds_configs" / "frontier_zero1.json"), "machine": "frontier", "ranks": 64}
    box = str(ROOT / "models" / "matey-micro")
    about = {"system": "thermals", "scale": "paper", "pretrained": box}
    study = DataEfficiencyStudy(work=tmp_path, out=tmp_path / "out", points=points, **about, **how)
    head, _, _, line, last, peers = study.plan().splitlines()
    assert "64 ranks on 8 nodes, 256 samples" in head and line.split()[:2] == ["prepost", "6"]
    assert last.startswith("6 trainings, ") and peers == "And 6 peers, 6 hours on one CPU or GPU."
    assert load_config(ROOT / study.size.config).data.lead_max == study.run_config(points[0]).data.lead_max


PATHS = {"shallow_water": "data/water", "diffusion_reaction": "data/reaction"}


def comparison(out, points=(), **how):
    return Comparison(work=ROOT, out=out, paths=PATHS, points=points, **how)


def test_some_models_are_chosen_by_name():
    assert COMPARED[: len(PEERS)] == PEERS
    names = [point.name for point in peers.points_of(tuple(PATHS), [10], 1, ["cells", "joint"])]
    assert names == ["cells-shallow_water-10-0", "cells-diffusion_reaction-10-0", "matey-joint-10-0"]


def test_the_cells_alone_are_trained_as_matey_is_without_tokens(tmp_path):
    points = peers.points_of(("shallow_water",), [10], 1)
    settings = ("tokens.patches=[[1, 1, 32, 16], [1, 1, 8, 8]]", "train.learning_rate=3e-4")
    study = comparison(tmp_path, points, settings=settings)
    cells, matey = (study.run_config(point) for point in points[-2:])
    assert (cells.model.network, cells.tokens.set, cells.tokens.patches) == ("cells", "uniform", ((1, 1, 32, 16),))
    assert cells.train == matey.train and matey.model.network != "cells" and len(matey.tokens.patches) == 2


ENGINE = str(ROOT / "ds_configs" / "frontier_zero1.json")


def pretraining_of(name, scale, out, seeds=None, models=None, **how):
    size = PRETRAININGS[name].scales[scale]
    how = {"ranks": size.ranks} | how
    return PretrainingStudy(work=ROOT, out=out, name=name, scale=scale, points=points_of(size, seeds, models), **how)


def test_models_that_are_named_are_trained_and_a_name_that_is_none_is_refused():
    size = PRETRAININGS["schemes"].scales["laptop"]
    found = points_of(size, 2, "avit-micro,vit-Ti")
    assert [point.name for point in found] == ["vit-Ti-seed0", "avit-micro-seed0", "vit-Ti-seed1", "avit-micro-seed1"]
    with pytest.raises(StudyError, match="--models: the study has no model 'vit-L'; it has vit-micro, "):
        points_of(size, 2, "vit-L")


def test_a_study_at_the_papers_scale_says_what_each_model_and_all_cost(tmp_path):
    models, how = "vit-Ti,vit-S,vit-B", {"deepspeed_config": ENGINE, "machine": "frontier"}
    head, columns, _, *lines, last = (
        pretraining_of("schemes", "paper", tmp_path, models=models, **how).plan().splitlines()
    )
    assert head == "On frontier, 736 ranks on 92 nodes, 1472 samples a step:"
    assert columns.split()[:3] == ["trainings", "weights", "tokens"]
    assert [line.split()[:2] for line in lines] == [["vit-Ti", "3"], ["vit-S", "3"], ["vit-B", "3"]]
    total = 3 * sum(float(line.split()[-1]) for line in lines)
    assert last.startswith("9 trainings, ")
    assert float(last.split()[2].replace(",", "")) == pytest.approx(total, rel=0.01) and total > 100


def scaling_of(config, out, sizes=(1, 2), on_nodes=False, **how):
    how |= {"mode": "weak", "deepspeed_config": str(ROOT / "ds_configs/zero1.json"), "warm_up": 1, "timed_steps": 3}
    points = scaling.points_of(sizes, 8 if on_nodes else None)
    return ScalingStudy(work=ROOT, out=out, config=str(config), points=points, **how)


@pytest.fixture
def run(run_yaml):
    return load_config(run_yaml(train={"micro_batch": 6, "accumulation": 2}))


def test_weak_keeps_the_samples_of_a_rank_and_strong_the_global_batch(run):
    points = scaling.points_of([4, 1, 2, 3, 2], None)
    assert [point.name for point in points] == ["ranks_1", "ranks_2", "ranks_3", "ranks_4"]
    assert [batch_of("weak", run, point, points[0]) for point in points] == [(1, 6, 2)] * 4
    # In micro-batches no larger than the run's.
    assert [batch_of("strong", run, p, points[0]) for p in points] == [(1, 6, 2), (1, 6, 1), (1, 4, 1), (1, 3, 1)]
    assert batch_of("sequence", run, points[-1], points[0]) == (4, 1, 1)


def test_a_batch_or_group_that_cannot_be_shared_out_is_refused(run, run_yaml):
    first, last = scaling.points_of([1, 92], 8)
    with pytest.raises(ConfigError, match="96 samples cannot be divided evenly among the 736 groups.*multiple of 736"):
        batch_of("strong", run, last, first)
    for size in (4, "auto"):
        own = load_config(run_yaml(parallel={"sequence_parallel_size": size, "memory_limit": 1}))
        with pytest.raises(
            ConfigError, match=f"sequence_parallel_size is {size}: in a study it must be a number that d"
        ):
            batch_of("weak", own, Point(6), Point(4))


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("forked")
def test_a_study_measures_each_point_once_beside_what_is_planned(run_yaml, tmp_path):
    study = scaling_of(run_yaml(), tmp_path / "out")
    text = run_study(study)
    lines = [
        json.loads(line) for line in (study.folder(study.points[1]) / "run/metrics.jsonl").read_text().splitlines()
    ]
    steps = [line for line in lines if "seconds" in line]
    assert ["traffic" in line for line in steps] == 4 * [False] + COUNTED_STEPS * [True]
    (measured, planned) = json.loads((study.folder(study.points[1]) / "rows.json").read_text())["rows"]
    assert measured["step_seconds"] == statistics.median(line["seconds"] for line in steps[1:4])
    assert measured["samples"] == planned["samples"] == 2 * study.run_config(study.points[0]).train.micro_batch
    assert 0 < measured["communication"] < 1 and measured["memory"] <= measured["total_memory"]
    assert "measured, 2 ranks" in text and "planned, 1 rank" in text
    run_study(study)
    assert len((study.folder(study.points[1]) / "run/metrics.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.processes
def test_on_nodes_the_sites_script_runs_the_points_configuration(run_yaml, tmp_path, monkeypatch):
    site = tmp_path / "site.sbatch"
    site.write_text("#!/usr/bin/env bash\n#SBATCH -q debug\n")
    study = scaling_of(run_yaml(), tmp_path / "a study", (1, 4), True, machine="frontier", site=site)
    stand_in(tmp_path / "bin" / "sbatch", 'printf "%s|" "$@"; echo')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = write_jobs(study, [])
    said = subprocess.run(["bash", path, "-AX"], capture_output=True, text=True, check=True).stdout
    _, second = (line.split("|")[:-1] for line in said.splitlines())
    assert second[-4:-2] == ["-AX", "--nodes=4"] and second[-1] == str(site)
    yaml, engine = study.folder(study.points[1]) / "run.yaml", study.deepspeed_config
    venv = os.environ.get("VENV", sys.prefix)
    assert second[-2] == f"--export=ALL,CONFIG={yaml},DEEPSPEED_CONFIG={engine},MAX_JOBS=1,VENV={venv}"
    assert load_config(yaml).output.dir == str(study.folder(study.points[1]) / "run")
    with pytest.raises(StudyError, match="nodes_1 is not measured yet: --slurm writes its job"):
        run_study(study)
