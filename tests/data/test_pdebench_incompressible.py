"""The incompressible files: what a stopped generator left unwritten, and the orientation of the real flow."""

import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.layout_files import NUM_FRAMES, write_incompressible


def test_description_holds_domain_interval_and_parameters(tmp_path):
    about = open_dataset(write_incompressible(tmp_path / "a.h5")).trajectories[1]
    assert about.spacing == pytest.approx((1.0, 2 / 8, 6 / 12)) and about.time_step == pytest.approx(1 / 64)
    assert about.boundary == ("none", "wall", "wall")
    assert about.parameters == {"seed": 7.0, "NU": 0.01, "force_scale": 0.15}


def test_frames_after_the_latest_one_written_are_not_part_of_the_trajectory(tmp_path):
    trajectories = open_dataset(write_incompressible(tmp_path / "a.h5", num_written=3))
    assert [about.num_frames for about in trajectories.trajectories] == [3, 3]
    trajectories.read(1, 0, 3)


@pytest.mark.parametrize("latest", [-1, NUM_FRAMES])
def test_a_latest_frame_outside_the_file_is_refused(tmp_path, latest):
    path = write_incompressible(tmp_path / "a.h5", latestIndex=latest)
    with pytest.raises(DataError, match=rf"latestIndex: expected the last frame written, 0 to 5, got {latest}"):
        open_dataset(path)


def test_real_flow_is_divergence_free_where_x_and_y_are_what_they_say(real_file):
    """Frame 0 is not yet projected, as the README of the real files says; with x and y swapped it is 190 times larger."""
    trajectories = open_dataset(real_file("pdebench/incompressible"))
    assert (trajectories.system, trajectories.num_trajectories) == ("incompressible", 2)
    about = trajectories.trajectories[0]
    assert (about.num_frames, about.grid, about.spacing) == (41, (1, 64, 64), (1.0, 1 / 64, 1 / 64))
    assert about.time_step == pytest.approx(0.005) and about.parameters["NU"] == 0.01
    for index in range(2):
        u, v, _ = trajectories.read(index, 0, 41).astype(np.float64)[[0, 40], :, 0].swapaxes(0, 1)
        divergence = (np.gradient(u, 1 / 64, axis=2) + np.gradient(v, 1 / 64, axis=1))[:, 2:-2, 2:-2]
        first, last = np.sqrt((divergence**2).mean((1, 2)))
        assert first > 5 and last < 0.1
