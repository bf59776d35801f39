"""The compressible files: their times, what tells Rand from Turb, and the orientation of the real flow."""

import numpy as np
import pytest

from matey.data import open_dataset
from tests.support.layout_files import NUM_FRAMES, write_compressible


def continuity(frames, spacing, time_step):
    """How well d rho / dt goes with -div(rho v) on a periodic grid: 1 where it is the same to second order."""
    u, v, density = frames[:, :3, 0].astype(np.float64).swapaxes(0, 1)
    along_x = (np.roll(density * u, -1, 2) - np.roll(density * u, 1, 2)) / (2 * spacing[2])
    along_y = (np.roll(density * v, -1, 1) - np.roll(density * v, 1, 1)) / (2 * spacing[1])
    rate = (density[2:] - density[:-2]) / (2 * time_step)
    return float(np.corrcoef(rate.ravel(), -(along_x + along_y)[1:-1].ravel())[0, 1])


@pytest.mark.parametrize("turbulent", [False, True])
def test_description_holds_domain_interval_and_parameters(tmp_path, turbulent):
    trajectories = open_dataset(write_compressible(tmp_path / "a.hdf5", turbulent))
    assert trajectories.num_trajectories == 2
    about = trajectories.trajectories[1]
    assert about.num_frames == NUM_FRAMES  # the file has one more time
    assert about.spacing == pytest.approx((1.0, 1 / 16, 1 / 4)) and about.time_step == pytest.approx(1 / 32)
    assert about.boundary == ("none", "periodic", "periodic") and about.periodic == (False, True, True)
    assert about.parameters == {"M": 0.1, "eta": 0.01, "zeta": 0.02}


def test_rand_and_turb_are_told_apart_by_their_first_density_not_by_their_name(tmp_path):
    assert open_dataset(write_compressible(tmp_path / "2D_CFD_Turb_M1.0.hdf5")).system == "compressible_rand"
    assert open_dataset(write_compressible(tmp_path / "2D_CFD_Rand_M1.0.hdf5", True)).system == "compressible_turb"


def test_real_random_flow_keeps_its_mass_and_obeys_continuity(real_file):
    trajectories = open_dataset(real_file("pdebench/cfd_rand"))
    assert (trajectories.system, trajectories.num_trajectories) == ("compressible_rand", 3)
    about = trajectories.trajectories[0]
    assert (about.num_frames, about.grid, about.spacing) == (21, (1, 64, 64), (1.0, 1 / 64, 1 / 64))
    assert about.time_step == pytest.approx(0.05) and about.parameters == {"M": 0.1, "eta": 0.01, "zeta": 0.01}
    for index in range(3):
        frames = trajectories.read(index, 0, 21).astype(np.float64)
        mass, momentum = frames[:, 2].sum((1, 2, 3)), (frames[:, :2] * frames[:, 2:3]).sum((2, 3, 4))
        np.testing.assert_allclose(mass, mass[0], rtol=1e-5)
        np.testing.assert_allclose(momentum, momentum[:1].repeat(21, 0), atol=1e-4 * mass[0])
        # Sound crosses several cells between frames; friction leaves waves long and slow enough from frame 10 on.
        late = frames[10:]
        assert continuity(late, about.spacing, about.time_step) > 0.7
        assert abs(continuity(late.swapaxes(-1, -2), about.spacing, about.time_step)) < 0.2


def test_real_turbulence_keeps_its_mass_and_obeys_continuity(real_file):
    """The correlation is 0.63 with the axes as read, -0.03 with x and y swapped (frames are far apart in time)."""
    trajectories = open_dataset(real_file("pdebench/cfd_turb"))
    assert (trajectories.system, trajectories.num_trajectories) == ("compressible_turb", 2)
    assert trajectories.trajectories[0].parameters == {"M": 1.0, "eta": 1e-8, "zeta": 1e-8}
    for index, about in enumerate(trajectories.trajectories):
        frames = trajectories.read(index, 0, 21)
        assert np.ptp(frames[0, 2]) == 0 and frames[0, 3].mean() == pytest.approx(0.6)
        assert np.hypot(frames[0, 0], frames[0, 1]).mean() == pytest.approx(1, abs=1e-3)
        mass = frames[:, 2].sum((1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(mass, mass[0], rtol=1e-5)
        assert continuity(frames, about.spacing, about.time_step) > 0.5
        assert abs(continuity(frames.swapaxes(-1, -2), about.spacing, about.time_step)) < 0.1
