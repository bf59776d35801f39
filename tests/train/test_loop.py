"""When training ends.

The learning rate.
"""

import pytest

from matey.config import TrainSection
from matey.train.loop import Progress, learning_rate


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
