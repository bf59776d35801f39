"""When training ends.

The learning rate.
"""

import pytest

from matey.config import TrainSection
from matey.train.loop import Progress, learning_rate, warm_up_notes


def test_training_ends_after_so_many_validations_without_a_new_best():
    settings = TrainSection(steps=100, patience=2)
    progress, done = Progress(), []
    for error in (0.5, 0.6, 0.4, 0.4, 0.5):
        progress = progress.after(error)
        done.append(progress.is_done(settings))
    assert done == [False, False, False, False, True]
    assert progress.state() == {"best": 0.4, "stale": 2, "owes_validation": False, "validated": ""}
    assert not progress.is_done(TrainSection(steps=100))
    assert Progress(step=100).is_done(settings) and not Progress(step=100).has_stopped_early(settings)
    assert not Progress(step=100, owes_validation=True).is_done(settings)


def test_the_rate_warms_up_linearly_then_follows_a_cosine_to_its_end():
    train = TrainSection(steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4)
    assert learning_rate(1, train) == pytest.approx(1e-4)
    assert learning_rate(10, train) == pytest.approx(1e-3)
    assert learning_rate(60, train) == pytest.approx(5.5e-4)
    assert learning_rate(110, train) == pytest.approx(1e-4)


def test_a_constant_rate_stays():
    train = TrainSection(steps=10, schedule="constant", learning_rate=1e-3)
    assert {learning_rate(step, train) for step in range(1, 11)} == {1e-3}


def test_a_warm_up_that_does_not_end_is_said():
    train = TrainSection(steps=50, warmup_steps=100, learning_rate=1e-3)
    assert warm_up_notes(train) == [
        "The learning rate warms up over 100 steps, and the run has 50: it ends at 0.0005 and never falls; lower "
        "train.warmup_steps, too."
    ]
    assert warm_up_notes(train.model_copy(update={"steps": 101})) == []
