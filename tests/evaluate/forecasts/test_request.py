"""What is asked for: the times of a forecast's snapshots."""

import numpy as np

from matey.data import TrajectorySet, open_dataset
from matey.evaluate.forecasts.request import ForecastRequest
from tests.support.described_files import describe
from tests.support.snapshot_files import COMMON, VALUES


def request_of(data, num_steps):
    return ForecastRequest(data, (0,), start=0, num_frames=2, num_steps=num_steps, lead=1)


def test_times_are_those_of_the_data_and_go_on_beyond_it(tmp_path):
    for step in range(4):
        np.save(tmp_path / f"h_2020-01-01_{6 * step:02d}.npy", VALUES[0, step, 0])
    files = {"files": "h_*.npy", "fields": {"height": None}, "time_step": {"date_in_name": "%Y-%m-%d_%H"}}
    request = request_of(open_dataset(describe(tmp_path, COMMON | files)), 6)
    expected = np.datetime64("2020-01-01").astype("datetime64[s]").astype(float) + 6 * 3600 * np.arange(1, 8)
    np.testing.assert_array_equal(request.times(request.last_known + np.arange(7)), expected)


def test_times_of_data_without_any_begin_with_the_trajectory():
    fields = {"u": np.zeros((1, 3, 4, 4), "f4")}
    data = TrajectorySet.from_arrays("puffs", fields, spacing=(1, 1), boundary=("wall", "wall"), time_step=0.5)
    assert request_of(data, 3).times(np.arange(4)).tolist() == [0, 0.5, 1, 1.5]
