"""The learning rate."""

import pytest

from matey.config import TrainSection
from matey.train.loop import learning_rate, warm_up_notes


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
