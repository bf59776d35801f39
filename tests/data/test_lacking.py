"""What a model is told and data lacks is said."""

import numpy as np

from matey.data import TrajectorySet
from matey.data.trajectories import lacking_note


def puffs(parameters, **given):
    fields = {"u": np.zeros((2, 3, 4, 4), "f4")}
    ends = {"spacing": (1, 1), "boundary": ("wall", "wall")}
    return TrajectorySet.from_arrays("puffs", fields, parameters=parameters, given=given, **ends)


def test_what_trajectories_lack_of_a_models_parameters_is_said():
    data = puffs([{"nu": 1.0}, {"nu": 2.0, "u": 1.0}])
    assert lacking_note(["nu", "u"], [], [data]).startswith(
        "The model takes u, which trajectories lack, 1 of 2 of puffs"
    )
    unknown = puffs([{"nu": 1.0}, {"nu": float("nan")}])
    assert "takes nu, which trajectories lack, 1 of 2 of puffs" in lacking_note(["nu"], [], [data, unknown])
    assert lacking_note(["nu"], [], [data]) == lacking_note([], [], [data]) == ""


def test_given_fields_that_a_set_lacks_are_said_but_not_one_that_it_has_to_predict():
    data = puffs([], land=np.zeros((2, 4, 4)))
    assert lacking_note([], ["land", "u"], [data, data.with_given([])]) == ""
    assert lacking_note([], ["land", "sun"], [data]) == (
        "The model takes the given fields sun, which puffs lacks: it does without them."
    )
