"""When training ends."""

from matey.config import TrainSection
from matey.train.loop import Progress


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
