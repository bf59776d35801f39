"""What each study trains."""

from pathlib import Path

import pytest

from matey.config.choices import CRITERIA
from matey.model.configuration import model_config
from matey.studies.cases import PRETRAININGS, StudyError, check_overrides, resolution_cases, stated_by
from matey.studies.pretraining import PretrainingStudy, points_of
from matey.tokens.refinement import check_window
from tests.support.laws import law
from tests.support.paths import ROOT

TABLES = [(name, scale) for name, study in PRETRAININGS.items() for scale in study.tables]
SMALLEST = [(name, next(iter(study.tables))) for name, study in PRETRAININGS.items()]


def study_of(name, scale, settings=(), seeds=1):
    points = points_of(PRETRAININGS[name].tables[scale], seeds)
    return PretrainingStudy(ROOT, Path("out"), name, scale, points, settings=settings)


@law(("name", "scale"), TABLES, quick=SMALLEST)
def test_every_point_is_a_run_of_its_own_that_the_schema_accepts(name, scale):
    study = study_of(name, scale, ("train.micro_batch=3",), seeds=2)
    table, points = study.table, study.points
    assert len({point.name for point in points}) == len(points) == 2 * len(table.cases)
    assert {point.case.name for point in points} >= {*table.references, *table.controls}
    stated = set()
    for point in points:
        run = study.run_config(point)
        assert (run.train.seed, run.train.micro_batch) == (point.seed, 3)
        assert len(run.data.sets) == len(table.data_of(point.case)) or not table.data_of(point.case)
        assert 2 * run.train.warmup_steps <= run.train.steps
        if run.model.scheme != "vit":  # it attends along time
            assert all(run.data.history // frames > 1 for frames, *_ in run.tokens.patches)
        sections = (run.model, run.tokens, run.data)
        stated.add((run.train.steps, *(section.model_dump_json() for section in sections)))
    assert len(stated) == len(table.cases)


def test_adaptive_and_uniform_tokens_differ_in_nothing_else():
    study = study_of("adaptivity", "laptop")
    rest: dict[int, set[str]] = {2: set(), 4: set()}
    for run in (study.run_config(point) for point in study.points if point.case.series.startswith("vit")):
        rest[run.data.history].add(run.model_copy(update={"tokens": None, "output": None}).model_dump_json())
    assert [len(each) for each in rest.values()] == [1, 1]


def test_criteria_are_compared_at_equal_numbers_of_tokens_uniform_16s_among_them():
    study = study_of("adaptivity", "laptop")
    (data,) = study.table.data
    tokens = [study.run_config(point).tokens for point in study.points if " by " in point.case.series]
    assert {each.criterion for each in tokens} == set(CRITERIA.own) and {each.rule for each in tokens} == {"budget"}
    _, y, x = data.grid
    assert y * x // 16**2 in {each.refine for each in tokens}
    assert all((each.refine - y * x // 32**2) % 3 == 0 for each in tokens)


@pytest.mark.parametrize(("scale", "size"), [("tiny", "micro"), ("laptop", "Ti")])
def test_on_a_fine_grid_patches_have_one_frame_and_budgets_can_be_spent(scale, size):
    study = study_of("fine_grid", scale, ("model.fields=[density]",))
    (data,) = study.table.data
    for point in study.points:
        run = study.run_config(point)
        assert run.model.size == size and {patch[0] for patch in run.tokens.patches} == {1}
        network = model_config(run)
        check_window((run.data.history, *data.grid), network.patches, network.refinement)


def test_the_longest_sequences_have_65536_tokens_on_four_ranks():
    study = study_of("long_sequences", "laptop")
    (data,) = study.table.data
    _, y, x = data.grid
    runs = [study.run_config(point) for point in study.points]
    tokens = [[run.data.history * (y // patch[2]) * (x // patch[3]) for patch in run.tokens.patches] for run in runs]
    assert tokens == [[1024], [4096], [16384], [65536], [1024, 65536]] and runs[-1].tokens.set == "mix"
    assert {run.parallel.sequence_parallel_size for run in runs} == {study.table.ranks} == {4}


def test_coarse_patches_of_one_size_in_space_have_a_level_more_at_every_doubling():
    cases = {case.name: case for case in resolution_cases((64, 128, 256), 1, 1)}
    for cells, sizes in ((64, [16, 8]), (128, [32, 16, 8]), (256, [64, 32, 16, 8])):
        _, patches, *_ = cases[f"mix-a-quarter-of-the-width-to-8-{cells}"].settings
        assert patches == "tokens.patches=[" + ",".join(f"[2,1,{size},{size}]" for size in sizes) + "]"


@pytest.mark.parametrize("setting", ["model.scheme=avit", "tokens.refine = 0.9", "tokens={refine: 0.9}"])
def test_what_a_model_states_itself_is_not_overridden(setting):
    cases = PRETRAININGS["adaptivity"].tables["tiny"].cases
    with pytest.raises(StudyError, match="would not be what the name says; leave it out, or choose other --models"):
        check_overrides([setting], stated_by(cases))


@pytest.mark.parametrize("setting", ["model.size=S", "tokens.criterion=random", "train.steps=3", "tokens.refined=1"])
def test_what_no_model_states_may_be_overridden(setting):
    check_overrides([setting], stated_by(PRETRAININGS["adaptivity"].tables["tiny"].cases))
