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


def warm_up_notes(train: TrainSection) -> list[str]:
    """Return a sentence if the warm-up does not end before the run, as after its steps alone were shortened."""
    if train.warmup_steps < train.steps:
        return []
    return [
        f"The learning rate warms up over {train.warmup_steps} steps, and the run has {train.steps}: it ends at "
        f"{learning_rate(train.steps, train):.3g} and never falls; lower train.warmup_steps, too."
    ]
