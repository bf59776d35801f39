"""What each study trains."""

from pathlib import Path

import pytest

from matey.config import load_config
from matey.config.choices import CRITERIA
from matey.data.splits import split_trajectories
from matey.model.configuration import model_config
from matey.studies.cases import FINETUNE_SCALES, PRETRAININGS, StudyError, check_overrides, resolution_cases, stated_by
from matey.studies.pretraining import PretrainingStudy, points_of
from matey.tokens.refinement import check_window
from tests.support.laws import law
from tests.support.paths import ROOT

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
        run, data = study.run_config(point), point.case.data or size.data
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


@pytest.mark.parametrize(("name", "scale"), [("adaptivity", "laptop"), ("fine_grid", "tiny"), ("fine_grid", "laptop")])
def test_budgets_of_criteria_can_be_spent(name, scale):
    study = study_of(name, scale, ("model.fields=[density]",))
    (data,) = study.size.data
    tokens = set()
    for point in (point for point in study.points if " by " in point.case.series):
        run = study.run_config(point)
        network = model_config(run)
        check_window((run.data.history, *data.grid), network.patches, network.refinement)
        tokens.add((run.tokens.rule, run.tokens.criterion))
    assert tokens <= {("budget", criterion) for criterion in CRITERIA.own} and ("budget", "random") in tokens


def test_the_longest_sequences_have_65536_tokens_on_four_ranks():
    study = study_of("long_sequences", "laptop")
    (data,) = study.size.data
    _, y, x = data.grid
    runs = [study.run_config(point) for point in study.points]
    tokens = [[run.data.history * (y // patch[2]) * (x // patch[3]) for patch in run.tokens.patches] for run in runs]
    assert tokens == [[1024], [4096], [16384], [65536], [1024, 65536]] and runs[-1].tokens.set == "mix"
    assert {run.parallel.sequence_parallel_size for run in runs} == {study.size.ranks} == {4}


def test_coarse_patches_of_one_size_in_space_have_a_level_more_at_every_doubling():
    cases = {case.name: case for case in resolution_cases((64, 128, 256), 1, 1)}
    for cells, sizes in ((64, [16, 8]), (128, [32, 16, 8]), (256, [64, 32, 16, 8])):
        _, patches, *_ = cases[f"mix-a-quarter-of-the-width-to-8-{cells}"].settings
        assert patches == "tokens.patches=[" + ",".join(f"[2,1,{size},{size}]" for size in sizes) + "]"


@pytest.mark.parametrize(("system", "name"), [(s, n) for s, scales in FINETUNE_SCALES.items() for n in scales])
def test_simulated_data_holds_enough_to_train_on_and_costs_are_of_one_thread(system, name):
    scale = FINETUNE_SCALES[system][name]
    run = load_config(ROOT / scale.config, scale.settings)
    for data in scale.data:
        train = split_trajectories(data.trajectories, run.data.split, run.data.split_seed).train
        assert len(train) >= max(scale.sizes) and run.parallel.threads == 1


@pytest.mark.parametrize("setting", ["model.scheme=avit", "tokens.refine = 0.9", "tokens={refine: 0.9}"])
def test_what_a_model_states_itself_is_not_overridden(setting):
    cases = PRETRAININGS["adaptivity"].scales["tiny"].cases
    with pytest.raises(StudyError, match="would not be what the name says; leave it out, or choose other --models"):
        check_overrides([setting], stated_by(cases))
    check_overrides(["model.size=S", "train.steps=3", "tokens.refined=1"], stated_by(cases))
