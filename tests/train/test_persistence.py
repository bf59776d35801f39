"""Persistence's error from slabs of frames, beside that of whole ones."""

import numpy as np
import pytest

from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.train import run_data as persistence
from matey.train.loss import BALANCED, Gradient
from matey.train.run_data import persistence_by_system


def data_of(shape, boundary):
    random = np.random.default_rng(0)
    fields = {name: random.random((2, 4, *shape), dtype=np.float32) for name in ("density", "pressure")}
    return TrajectorySet.from_arrays("gas", fields, spacing=(1,) * len(shape), boundary=boundary)


@pytest.mark.parametrize("loss", [BALANCED, Gradient(balanced=True)])
@pytest.mark.parametrize(
    ("shape", "boundary"),
    [((7, 6, 5), ("wall", "periodic", "open")), ((8, 3, 4), ("periodic",) * 3), ((9, 5), ("wall", "periodic"))],
)
def test_persistence_of_frames_read_in_slabs_is_that_of_whole_ones(monkeypatch, loss, shape, boundary):
    data = data_of(shape, boundary)
    windows = [
        Window(0, trajectory, start, lead) for trajectory in range(2) for start, lead in ((0, 1), (0, 2), (1, 1))
    ]
    whole = persistence_by_system([data], windows, 2, loss)
    layer = 4 * 2 * np.prod(shape[1:])
    sizes, read = [], data.read

    def counted(*args):
        frames = read(*args)
        sizes.append(frames.nbytes)
        return frames

    monkeypatch.setattr(data, "read", counted)
    for layers in (1, 2, 3):
        monkeypatch.setattr(persistence, "AT_ONCE", layers * layer)
        assert persistence_by_system([data], windows, 2, loss)["gas"] == pytest.approx(whole["gas"], rel=1e-6)
        assert max(sizes) <= (layers + 2 * loss.halo) * layer


def test_a_field_that_rests_has_no_error_in_slabs_either(monkeypatch):
    values = np.ones((1, 3, 8, 8), dtype=np.float32)
    data = TrajectorySet.from_arrays("gas", {"density": values}, spacing=(1, 1), boundary=("open",) * 2)
    monkeypatch.setattr(persistence, "AT_ONCE", 4 * 8)
    assert persistence_by_system([data], [Window(0, 0, 0, 1)], 2, BALANCED) == {"gas": {1: 0.0}}
