"""The MHD cavity against published centre lines, its own equations in another form, and its orders of accuracy.

Implicit diffusion on the square satisfies its equations, walls included.

What a reader finds in the files of MHD cavities.
"""

from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch

from matey.simulate.ensemble import make
from matey.simulate.mhd_cavity import (
    LAYOUT,
    MHD_CAVITY,
    Cavity,
    CavityFlow,
    NoSlipDiffusion,
    ScalarDiffusion,
    SineTransform,
    array_name,
    draw_cavity,
    drive,
)

# Ghia, Ghia and Shin 1982, J. Comput. Phys. 48, 387, tables I and II, Re = 100: through the middle of the cavity.
GHIA_Y = (1, 0.9766, 0.9688, 0.9609, 0.9531, 0.8516, 0.7344, 0.6172, 0.5)
GHIA_Y += (0.4531, 0.2813, 0.1719, 0.1016, 0.0703, 0.0625, 0.0547, 0)
GHIA_VELOCITY_X = (1, 0.84123, 0.78871, 0.73722, 0.68717, 0.23151, 0.00332, -0.13641, -0.20581)
GHIA_VELOCITY_X += (-0.21090, -0.15662, -0.10150, -0.06434, -0.04775, -0.04192, -0.03717, 0)
GHIA_X = (1, 0.9688, 0.9609, 0.9531, 0.9453, 0.9063, 0.8594, 0.8047, 0.5)
GHIA_X += (0.2344, 0.2266, 0.1563, 0.0938, 0.0781, 0.0703, 0.0625, 0)
GHIA_VELOCITY_Y = (0, -0.05906, -0.07391, -0.08864, -0.10313, -0.16914, -0.22445, -0.24533, 0.05454)
GHIA_VELOCITY_Y += (0.17527, 0.17507, 0.16077, 0.12317, 0.10890, 0.10091, 0.09233, 0)


def last_frame(cavity, resolution, time):
    *_, frame = drive(cavity, resolution, 2, time)
    return frame


def away_from_the_lids_corners(resolution, distance=0.125):
    """Mark the nodes ``(y, x)`` that are farther than that from where the lid's speed jumps, along y or along x."""
    place = torch.linspace(0, 1, resolution, dtype=torch.float64)
    to_side = torch.minimum(place, 1 - place)
    return (1 - place[:, None] >= distance) | (to_side >= distance)


def fourth_order_gradient(field):
    """Return the derivatives along x and y of a square frame over the unit square; at its sides they mean nothing."""

    def along(axis):
        nearest, next_nearest = (np.roll(field, -n, axis) - np.roll(field, n, axis) for n in (1, 2))
        return (8 * nearest - next_nearest) * (len(field) - 1) / 12

    return along(1), along(0)


@pytest.mark.whole
def test_centre_lines_agree_with_ghia_ghia_and_shin():
    frame = last_frame(Cavity(field=0.0, magnetic_reynolds=100.0), resolution=65, time=12.0).numpy()
    place = np.linspace(0, 1, 65)
    np.testing.assert_allclose(np.interp(GHIA_Y, place, frame[:, 32, 0]), GHIA_VELOCITY_X, rtol=0, atol=0.01)
    np.testing.assert_allclose(np.interp(GHIA_X, place, frame[32, :, 1]), GHIA_VELOCITY_Y, rtol=0, atol=0.01)


@pytest.mark.slow
def test_error_falls_with_the_second_order_but_with_the_first_at_the_lids_corners():
    frames = [last_frame(Cavity(0.10, 100.0), resolution, 2.0) for resolution in (33, 65, 129)]
    everywhere, inside = [], []
    for coarse, fine in pairwise(frames):
        error = (fine[::2, ::2] - coarse).square()  # (y, x, f)
        everywhere.append(error.mean((0, 1)).sqrt())
        inside.append(error[away_from_the_lids_corners(len(coarse))].mean(0).sqrt())
    orders = torch.log2(inside[0] / inside[1])
    assert orders.min() > 1.8, orders
    orders = torch.log2(everywhere[0] / everywhere[1])
    assert orders[:2].min() > 0.9 and orders[2:].min() > 1.6, orders


@pytest.mark.whole
def test_error_of_the_steps_falls_with_the_second_order():
    def state(num_steps):
        flow = CavityFlow(Cavity(0.3, 100.0), 33, 2.0 / num_steps)
        for _ in range(num_steps):
            flow.step()
        return flow.frame()[..., 1:]

    exact = state(800)
    coarse, fine = ((state(num_steps) - exact).norm() for num_steps in (100, 200))
    assert coarse / fine == pytest.approx(4, rel=0.15)


@pytest.mark.slow
def test_steady_frame_satisfies_the_equations_of_velocity_and_field():
    cavity, resolution = Cavity(0.10, 100.0), 65
    velocity_x, velocity_y, field_x, field_y = last_frame(cavity, resolution, 20.0).numpy().transpose(2, 0, 1)

    def along(vector_x, vector_y, field):
        along_x, along_y = fourth_order_gradient(field)
        return vector_x * along_x + vector_y * along_y

    def laplacian(field):
        along_x, along_y = fourth_order_gradient(field)
        return fourth_order_gradient(along_x)[0] + fourth_order_gradient(along_y)[1]

    vorticity = fourth_order_gradient(velocity_y)[0] - fourth_order_gradient(velocity_x)[1]
    current = fourth_order_gradient(field_y)[0] - fourth_order_gradient(field_x)[1]
    balances = [  # what carries, what pulls, what diffuses
        (along(velocity_x, velocity_y, vorticity), along(field_x, field_y, current), laplacian(vorticity) / 100),
        (along(velocity_x, velocity_y, field_x), along(field_x, field_y, velocity_x), laplacian(field_x) / 100),
        (along(velocity_x, velocity_y, field_y), along(field_x, field_y, velocity_y), laplacian(field_y) / 100),
    ]
    core = away_from_the_lids_corners(resolution, 0.25).numpy()
    core[:8], core[-8:], core[:, :8], core[:, -8:] = False, False, False, False
    for carried, pulled, diffused in balances:
        sizes = [np.linalg.norm(term[core]) for term in (carried, pulled, diffused)]
        assert np.linalg.norm((carried - pulled - diffused)[core]) < 0.05 * min(sizes)


def test_field_and_flow_are_free_of_divergence():
    frame = last_frame(Cavity(0.10, 100.0), resolution=32, time=2.0).numpy()
    derivatives = [np.gradient(frame[..., index], 1 / 31, axis=1 - index % 2, edge_order=2) for index in range(4)]
    assert np.abs(derivatives[2]).max() > 1
    assert np.abs(derivatives[2] + derivatives[3]).max() < 1e-10
    assert np.abs(derivatives[0] + derivatives[1])[2:-2, 2:-2].max() < 1e-10  # on the lid, speed is given


def test_fluid_sticks_to_the_walls_and_the_field_through_them_stays():
    for frame in drive(Cavity(0.2, 100.0), 32, num_frames=3, interval=1.0):
        velocity_x, velocity_y, field_x, field_y = frame.unbind(-1)
        assert (velocity_x[-1, 1:-1] == 1).all()
        for wall in (velocity_x[0], velocity_x[:, 0], velocity_x[:, -1], velocity_y[0], velocity_y[-1]):
            assert wall[1:-1].abs().max() == 0
        assert (field_x[:, [0, -1]] - 0.2).abs().max() < 1e-14
        assert field_y[[0, -1]].abs().max() == 0
    assert (field_x - 0.2).abs().max() > 0.1


def test_first_cavity_is_the_published_one_and_no_two_are_alike():
    assert draw_cavity(0) == Cavity(field=0.10, magnetic_reynolds=100.0, reynolds=100.0)
    assert len({draw_cavity(seed) for seed in range(3926)}) == 3926


NUM_NODES, SPACING = 9, 0.1


def minus_laplacian(field):
    """Of a field at all nodes, at the interior ones."""
    neighbours = field[2:, 1:-1] + field[:-2, 1:-1] + field[1:-1, 2:] + field[1:-1, :-2]
    return (4 * field[1:-1, 1:-1] - neighbours) / SPACING**2


def random_source():
    return torch.rand(NUM_NODES, NUM_NODES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_walls(field):
    return torch.nn.functional.pad(field, (1, 1, 1, 1))


@pytest.mark.parametrize("amount", [1e-6, 1e-3, 10.0])
def test_scalar_satisfies_its_equation(amount):
    source = random_source()
    field = ScalarDiffusion(SineTransform(NUM_NODES), amount).solve(source)
    torch.testing.assert_close(field + amount * minus_laplacian(with_walls(field)), source, rtol=0, atol=1e-11)


@pytest.mark.parametrize("amount", [1e-6, 1e-3, 10.0])
def test_vorticity_satisfies_its_equation_with_thoms_formula_on_the_walls(amount):
    source = random_source()
    stream = with_walls(NoSlipDiffusion(SineTransform(NUM_NODES), amount).solve(source))
    vorticity = with_walls(minus_laplacian(stream))
    # A wall's neighbour beyond it mirrors the one inside, so that no flow slips along the wall.
    vorticity[0], vorticity[-1] = -2 * stream[1] / SPACING**2, -2 * stream[-2] / SPACING**2
    vorticity[1:-1, 0], vorticity[1:-1, -1] = -2 * stream[1:-1, 1] / SPACING**2, -2 * stream[1:-1, -2] / SPACING**2
    solved = vorticity[1:-1, 1:-1] + amount * minus_laplacian(vorticity)
    torch.testing.assert_close(solved, source, rtol=0, atol=1e-10)


def test_published_names_have_four_and_three_characters_and_never_collide():
    names = [array_name(seed).removesuffix(".npy") for seed in range(1000)]
    assert len(set(names)) == 1000
    for name in names:
        _, _, field, _, number = name.split("_")
        assert (len(field), len(number)) == (4, 3)


def test_file_of_something_else_or_cut_short_has_no_settings(tmp_path):
    ensemble = MHD_CAVITY.ensemble({"interval": 0.5}, num_trajectories=1, resolution=20, num_frames=3)
    (path,) = make(tmp_path, ensemble)
    assert LAYOUT.holds(path, ensemble, [0])
    for content in (b"", b"CDF\x01", path.read_bytes()[:2000]):
        path.write_bytes(content)
        assert not LAYOUT.holds(path, ensemble, [0])
    with h5py.File(path, "w") as file:
        file["velocity"] = np.zeros((3, 20, 20, 2))
    assert not LAYOUT.holds(path, ensemble, [0])
