"""The ranges of scales that a network is told of: those of the trajectories that are trained on."""

import h5py
import numpy as np

from matey.config import load_config
from matey.train.run_data import open_data, seen_scales
from tests.support.laws import law


def ranges_by_hand(path, trajectories, history):
    """Smallest and largest scales of all histories that have a target, and a margin, read from the file itself."""
    found = []
    with h5py.File(path) as file:
        for trajectory in trajectories:
            frames = file[f"{trajectory:04d}/data"][..., 0].astype(np.float64)
            for last in range(history - 1, len(frames) - 1):
                known = frames[last + 1 - history : last + 1]
                change = np.sqrt(np.mean((known[-1] - known[-2]) ** 2))
                found.append(
                    [np.arcsinh(known.mean() / known.std()), np.log(known.std()), np.log(change / known.std())]
                )
    low, high = np.min(found, axis=0), np.max(found, axis=0)
    return [low - 0.1 * (high - low), high + 0.1 * (high - low)]


@law("history", [2, 3], quick=[3])
def test_ranges_are_those_of_the_frames_that_are_trained_on(run_yaml, tmp_path, history):
    run = load_config(run_yaml(data={"history": history, "trajectories": 3}))
    data = open_data(run)
    (bounds,) = seen_scales(run, data, None).values()
    expected = ranges_by_hand(tmp_path / "swe" / "2D_rdb_NA_NA.h5", data.splits[0].train, history)
    np.testing.assert_allclose(bounds, expected, rtol=1e-4)


def test_ranges_of_a_pretrained_model_are_widened_by_what_it_is_fine_tuned_on(run_yaml):
    run = load_config(run_yaml(data={"trajectories": 3}))
    data = open_data(run)
    own = seen_scales(run, data, None)["water_height"]
    before = {"water_height": [[-9.0, own[0][1], 0.0], [-8.0, own[1][1], 9.0]], "tracer": [[0.0] * 3, [1.0] * 3]}
    ranges = seen_scales(run, data, before)
    low, high = ranges["water_height"]
    assert ranges["tracer"] == before["tracer"]
    assert low == [-9.0, own[0][1], min(own[0][2], 0.0)] and high == [own[1][0], own[1][1], 9.0]
