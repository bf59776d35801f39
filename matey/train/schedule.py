"""The learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from matey.config import TrainSection


def learning_rate(step: int, train: TrainSection) -> float:
    """Return the learning rate of optimizer step ``step``, counted from 1: linear warm-up, then cosine or constant."""
    if step <= train.warmup_steps:
        return train.learning_rate * step / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    progress = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return train.final_learning_rate + (train.learning_rate - train.final_learning_rate) * cosine
