"""Colliding thermals against the published solver, its printed diagnostics, and the symmetries of the slice.

Written files against the file of miniWeather itself.
"""

import numpy as np
import pytest
import torch
from scipy.io import netcdf_file

from matey.simulate.ensemble import make
from matey.simulate.thermals import (
    COLLIDING_THERMALS,
    GAMMA,
    GAS_CONSTANT,
    HEAT_CAPACITY,
    HEIGHT,
    PRESSURE_FACTOR,
    SURFACE_PRESSURE,
    THETA,
    VARIABLES,
    WIDTH,
    Bubble,
    Slice,
    background_density,
    collide,
    draw_bubbles,
    write_trajectory,
)
from tests.support.paths import SHARED

# miniWeather's DATA_SPEC_COLLISION on its own grid.
STOCK = (Bubble(20.0, WIDTH / 2, 2000.0, 2000.0), Bubble(-20.0, WIDTH / 2, 8000.0, 2000.0))
STOCK_GRID = Slice(50, 100)


def seconds(*times):
    return torch.tensor(times, dtype=torch.float64)


def published_collision():
    path = SHARED / "miniweather" / "collision_100x50.nc"
    if not path.exists():
        pytest.skip("no collision_100x50.nc of the published generator beside the repository")
    return path


def mass_and_energy(frames, grid):
    """Sum up ``(t, f, z, x)`` as miniWeather does: its energy has no half in the kinetic part, and no potential part."""
    departure, wind_x, wind_z, warmth = frames.unbind(1)
    density, theta = background_density(grid.z_centres())[:, None] + departure, THETA + warmth
    pressure = PRESSURE_FACTOR * (density * theta) ** GAMMA
    temperature = theta * (pressure / SURFACE_PRESSURE) ** (GAS_CONSTANT / HEAT_CAPACITY)
    energy = density * (wind_x**2 + wind_z**2 + (HEAT_CAPACITY - GAS_CONSTANT) * temperature)
    return density.sum((1, 2)), energy.sum((1, 2))


@pytest.mark.whole
def test_every_frame_agrees_with_the_published_solver():
    with netcdf_file(published_collision(), mmap=False) as file:
        times = torch.from_numpy(file.variables["t"][:].astype("f8"))
        theirs = np.stack([file.variables[name][:] for name in ("dens", "uwnd", "wwnd", "theta")], axis=1)
    ours = collide([STOCK], STOCK_GRID, times)[0].numpy()
    assert np.abs(theirs[15]).max((1, 2)) == pytest.approx([0.042, 34, 24, 19], rel=0.05)  # it moves
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=0, atol=1e-11)  # kg/m3
    np.testing.assert_allclose(ours[:, 1:], theirs[:, 1:], rtol=0, atol=1e-8)  # m/s, K


@pytest.mark.slow
def test_energy_changes_by_what_the_published_solver_prints_and_mass_by_nothing():
    # 1500 times its step of 2/3 s falls 2e-11 s short of 1000 s in floating point, so it takes one more step, which is
    # short but damps the shortest waves like any other. Without that step the last digits would be 9410, not 7866.
    times = seconds(0, 1000 - 2e-11, 1000)
    frames = collide([STOCK], STOCK_GRID, times)[0]
    mass, energy = mass_and_energy(frames, STOCK_GRID)
    assert mass[-1] / mass[0] == pytest.approx(1, abs=1e-12)
    assert energy[1] / energy[0] - 1 == pytest.approx(3.93e-4, abs=0.005e-4)
    assert energy[2] / energy[0] - 1 == pytest.approx(3.927866e-4, abs=2e-10)


def test_mirrored_bubbles_give_the_mirrored_flow():
    bubbles = (Bubble(15.0, 9000.0, 2500.0, 1800.0), Bubble(-12.0, 10500.0, 7200.0, 1500.0))
    mirrored = [Bubble(each.amplitude, WIDTH - each.x, each.z, each.radius) for each in bubbles]
    flow, mirror = collide([bubbles, mirrored], Slice(16, 32), seconds(0, 250))[:, 1]
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None, None]
    assert flow[1].abs().max() > 5
    torch.testing.assert_close(mirror, sign * flow.flip(-1), rtol=0, atol=1e-8)


def test_flow_goes_around_the_periodic_slice():
    grid, shift = Slice(16, 32), 13
    moved = [Bubble(each.amplitude, (each.x + shift * WIDTH / 32) % WIDTH, each.z, each.radius) for each in STOCK]
    flow, around = collide([STOCK, moved], grid, seconds(0, 250))
    torch.testing.assert_close(around, flow.roll(shift, -1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_drawn_bubbles_are_inside_and_on_each_others_way(seed):
    warm, cold = draw_bubbles(seed)
    assert (warm, cold) == draw_bubbles(seed) != draw_bubbles(seed + 1)
    assert warm.amplitude > 0 > cold.amplitude
    for bubble in (warm, cold):
        assert 0 <= bubble.x <= WIDTH and bubble.radius <= bubble.z <= HEIGHT - bubble.radius
    apart = abs(warm.x - cold.x)
    assert min(apart, WIDTH - apart) <= 0.5 * (warm.radius + cold.radius)


def test_odd_resolution_is_refused(tmp_path):
    with pytest.raises(ValueError, match="half as many cells along z as along x, so 25 cells must be even"):
        make(tmp_path, COLLIDING_THERMALS.ensemble(num_trajectories=1, resolution=25, num_frames=2))


def structure(file):
    """Return what a reader can rely on: order and lengths of the dimensions, and axes and types of the variables."""
    variables = {name: (item.dimensions, item.data.dtype.str) for name, item in file.variables.items()}
    return list(file.dimensions.items()), variables


def test_file_is_laid_out_as_miniweathers_with_the_background_added(tmp_path):
    theirs, ours = published_collision(), tmp_path / "a.nc"
    ensemble = COLLIDING_THERMALS.ensemble(num_trajectories=1, resolution=100, num_frames=3)
    write_trajectory(ours, ensemble, 7, dict.fromkeys(VARIABLES, np.zeros((3, 50, 100))))
    assert ours.read_bytes()[:4] == theirs.read_bytes()[:4] == b"CDF\x01"
    with netcdf_file(ours, mmap=False) as our_file, netcdf_file(theirs, mmap=False) as their_file:
        our_dimensions, our_variables = structure(our_file)
        their_dimensions, their_variables = structure(their_file)
    assert our_dimensions == their_dimensions
    background = {name: (("z",), ">f8") for name in ("hy_dens", "hy_theta")}
    assert our_variables == their_variables | background


def test_file_cut_short_has_no_settings(tmp_path):
    ensemble = COLLIDING_THERMALS.ensemble(num_trajectories=1, resolution=16, num_frames=3)
    (path,) = make(tmp_path, ensemble)
    whole = path.read_bytes()
    for length in (20, 200, 700, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not COLLIDING_THERMALS.layout.holds(path, ensemble, [0])
