"""Tests of `matey.studies.overrides`: a name of a model says what is trained."""

import pytest

from matey.studies.folder import StudyError
from matey.studies.overrides import OF_ALL, check_overrides, stated_by
from matey.studies.pretraining.tables import STUDIES


@pytest.mark.parametrize(
    "setting", ["model.scheme=avit", "tokens.refine = 0.9", "tokens={refine: 0.9}", "model={size: S}"]
)
def test_what_a_model_states_itself_is_not_overridden(setting):
    cases = STUDIES["adaptivity"]().tables["tiny"].cases
    with pytest.raises(StudyError, match="would not be what the name says; leave it out, or choose other --models"):
        check_overrides([setting], stated_by(cases))


@pytest.mark.parametrize("setting", ["model.size=S", "tokens.criterion=random", "train.steps=3", "tokens.refined=1"])
def test_what_no_model_states_may_be_overridden(setting):
    check_overrides([setting], stated_by(STUDIES["adaptivity"]().tables["tiny"].cases))


def test_data_of_one_resolution_each_are_not_overridden_by_others():
    with pytest.raises(StudyError, match="--set data.sets: uniform-8-32"):
        check_overrides(["data.sets=[]"], stated_by(STUDIES["scaling_of_tokens"]().tables["tiny"].cases))


@pytest.mark.parametrize(
    ("study", "scale", "setting"),
    [("fine_grid", "laptop", "train.steps=3"), ("adaptivity", "paper", "parallel.checkpoint_blocks=all")],
)
def test_steps_and_memory_of_single_models_may_be_overridden(study, scale, setting):
    cases = STUDIES[study]().tables[scale].cases
    assert any(setting.split("=")[0] in text for case in cases for text in case.settings)
    check_overrides([setting], stated_by(cases))


@pytest.mark.parametrize("setting", ["output.dir=a", "train.seed=3", "output={dir: a}"])
def test_folders_and_seeds_are_those_of_the_study(setting):
    with pytest.raises(StudyError, match="a study gives each training its own; see --out and --seeds."):
        check_overrides([setting], OF_ALL)
