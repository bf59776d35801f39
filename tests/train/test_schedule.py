"""The learning rate."""

import pytest

from matey.config import TrainSection
from matey.train.schedule import learning_rate


def test_the_rate_warms_up_linearly_then_follows_a_cosine_to_its_end():
    train = TrainSection(steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4)
    assert learning_rate(1, train) == pytest.approx(1e-4)
    assert learning_rate(10, train) == pytest.approx(1e-3)
    assert learning_rate(60, train) == pytest.approx(5.5e-4)
    assert learning_rate(110, train) == pytest.approx(1e-4)


def test_a_constant_rate_stays():
    train = TrainSection(steps=10, schedule="constant", learning_rate=1e-3)
    assert {learning_rate(step, train) for step in range(1, 11)} == {1e-3}
