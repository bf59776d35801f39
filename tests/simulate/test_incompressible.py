"""Incompressible flow against the published solver and its conservation laws.

Noise against its spectrum and that of the published file.

Files of incompressible flow against those of the published generator.
"""

import math

import h5py
import numpy as np
import pytest
import torch
import yaml

from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from matey.simulate.incompressible import Flow, flow_in_box, noise, noise_in_box
from tests.support.paths import published_file


def size(field, dims):
    return field.square().sum(dims).sqrt()


def energy(flow):
    return flow.velocity.square().sum((-3, -2, -1))


def divergence(velocity):
    """The outflow of each cell of the unit square through its faces, ``(..., x, y)``; the walls close the first ones."""
    along_x, along_y = velocity.unbind(-3)
    x = along_x.diff(dim=-2, prepend=torch.zeros_like(along_x[..., :1, :]))
    y = along_y.diff(dim=-1, prepend=torch.zeros_like(along_y[..., :, :1]))
    return (x + y) * velocity.shape[-1]


def faces_from_cells(in_cells):
    """Undo ``Flow.velocity_in_cells``: each mean gives the upper face from the lower one, beginning at the wall."""
    faces = in_cells.clone()
    for component, dim in ((0, -2), (1, -1)):
        lines = faces[..., component, :, :].movedim(dim, 0)
        upper = torch.zeros_like(lines[0])
        for cell, mean in enumerate(lines.clone()):
            upper = 2 * mean - upper
            lines[cell] = upper
        lines[-1] = 0  # the wall; what is left there is the round-off of the means
    return faces


def eddy(resolution):
    """Return a smooth swirl that touches the walls at rest, from its stream function, and a tracer; off centre."""
    edges = torch.arange(1, resolution + 1, dtype=torch.float64) / resolution
    centres = edges - 0.5 / resolution
    shape = lambda x: torch.sin(math.pi * x) ** 2 * torch.exp(x)  # noqa: E731
    stream = torch.outer(shape(edges), shape(edges))  # at the upper corner of each cell
    before = (
        torch.cat((torch.zeros(1, resolution), stream[:-1])),
        torch.cat((torch.zeros(resolution, 1), stream[:, :-1]), 1),
    )
    velocity = torch.stack((stream - before[1], before[0] - stream)) * resolution / math.pi
    return Flow(velocity[None], torch.outer(torch.cos(math.pi * centres), torch.cos(2 * math.pi * centres))[None])


@pytest.fixture(scope="module")
def published():
    with h5py.File(published_file("incompressible/ns_incom_inhom_2d_64-1.h5")) as file:
        velocity, tracer, force = (
            torch.from_numpy(file[name][:]).double() for name in ("velocity", "particles", "force")
        )
    return velocity.movedim(-1, 2), tracer[..., 0], force.movedim(-1, 1)


@pytest.mark.whole
def test_flow_agrees_with_the_published_solver(published):
    velocity, tracer, force = published
    initial = Flow(faces_from_cells(velocity[:, 1]), tracer[:, 1])  # frame 0 is not divergence-free
    ours = flow_in_box(initial, faces_from_cells(force), torch.arange(11, dtype=torch.float64) * 0.005, viscosity=0.01)
    error = size(ours.velocity_in_cells()[:, -1] - velocity[:, 11], (2, 3)) / size(velocity[:, 11], (2, 3))
    assert error.max() < 0.07  # theirs has a no-slip wall half a cell further out, and blunter advection
    assert (size(ours.tracer[:, -1] - tracer[:, 11], (1, 2)) / size(tracer[:, 11], (1, 2))).max() < 0.08
    still = size(velocity[:, 1] - velocity[:, 11], (2, 3)) / size(velocity[:, 11], (2, 3))
    assert still.min() > 3 * error.max()

    divergence_of_theirs = divergence(faces_from_cells(velocity[:, 11])).abs().amax((1, 2))
    assert (divergence(ours.velocity).abs().amax((1, 2, 3)) < 1e-6 * divergence_of_theirs).all()


@pytest.mark.whole
def test_a_swirl_converges_with_second_order():
    def final(resolution):
        initial = eddy(resolution)
        flow = flow_in_box(initial, torch.zeros_like(initial.velocity), torch.tensor([0.0, 0.1]), viscosity=0.02)
        return flow.velocity_in_cells()[0, -1], flow.tracer[0, -1]

    def coarse(field):
        return torch.nn.functional.avg_pool2d(field, 2)

    runs = [final(resolution) for resolution in (16, 32, 64)]
    for component in range(2):
        errors = [
            (coarse(fine[component][None])[0] - rough[component]).abs().mean().item()
            for rough, fine in zip(runs, runs[1:], strict=False)
        ]
        assert math.log2(errors[0] / errors[1]) > 1.7


def test_flow_without_friction_keeps_its_energy_and_loses_it_to_friction_otherwise():
    initial = eddy(16)
    times = torch.tensor([0.0, 0.2], dtype=torch.float64)
    no_force = torch.zeros_like(initial.velocity)
    start, end = energy(flow_in_box(initial, no_force, times, viscosity=1e-12))[0]
    assert end / start == pytest.approx(1, abs=1e-4)
    start, end = energy(flow_in_box(initial, no_force, times, viscosity=0.02))[0]
    assert 0.5 < end / start < 0.9


def test_tracer_is_neither_lost_nor_exaggerated():
    flow, force = (noise_in_box(3, 24)[0], noise_in_box(3, 24)[1])
    moved = flow_in_box(Flow(flow.velocity[None], flow.tracer[None]), force[None], torch.linspace(0, 0.5, 6), 0.01)
    total = moved.tracer.sum((2, 3))
    torch.testing.assert_close(total, total[:, :1].expand_as(total), rtol=0, atol=1e-10)
    assert moved.tracer.max() <= flow.tracer.max() + 1e-3 and moved.tracer.min() >= flow.tracer.min() - 1e-3
    assert divergence(moved.velocity).abs().max() < 1e-10


def test_force_acts_on_the_tracer_alone():
    resolution = 16
    still = Flow(torch.zeros(2, 2, resolution, resolution, dtype=torch.float64), torch.zeros(2, resolution, resolution))
    still.tracer[1] = 1.0
    force = eddy(resolution).velocity.expand(2, -1, -1, -1)  # divergence-free: pressure takes nothing of it
    flow = flow_in_box(still, force, torch.tensor([0.0, 1e-4], dtype=torch.float64), viscosity=0.01)
    assert flow.velocity[0].abs().max() == 0
    torch.testing.assert_close(flow.velocity[1, 1], 1e-4 * force[1], rtol=0, atol=2e-6)


def power_by_wave(field):
    """Return the mean of the power of waves of each rounded length."""
    size = field.shape[-1]
    wave = np.fft.fftfreq(size, 1 / size)
    length = np.hypot(wave[:, None], wave).round().astype(int).ravel()
    power = np.abs(np.fft.fft2(field)).ravel() ** 2
    return np.bincount(length, power)[: size // 2] / np.bincount(length)[: size // 2]


def test_power_falls_with_the_fourth_power_of_the_wave_number_times_smoothness():
    fields = [noise(np.random.default_rng(seed), 64, scale=0.4, smoothness=1.0).numpy() for seed in range(20)]
    assert all(field.std() == pytest.approx(1) and abs(field.mean()) < 1e-12 for field in fields)
    power = sum(power_by_wave(field) for field in fields)
    assert np.log2(power[5] / power[20]) == pytest.approx(4 * np.log2(4), rel=0.05)


def test_a_seed_gives_the_same_flow_and_nothing_crosses_the_walls():
    (flow, force), (again, _), (other, _) = noise_in_box(1, 16), noise_in_box(1, 16), noise_in_box(2, 16)
    assert torch.equal(flow.velocity, again.velocity) and not torch.equal(flow.tracer, other.tracer)
    for faces in (flow.velocity, force):
        assert faces[0, -1].abs().max() == faces[1, :, -1].abs().max() == 0


def test_files_are_laid_out_as_the_published_one(tmp_path):
    published = published_file("incompressible/ns_incom_inhom_2d_64-1.h5")
    paths = make(
        tmp_path, SYSTEMS["incompressible"].ensemble(num_trajectories=5, resolution=16, num_frames=3, first_seed=1)
    )
    assert [path.name for path in paths] == ["ns_incom_inhom_2d_16-1.h5", "ns_incom_inhom_2d_16-5.h5"]
    with h5py.File(paths[0]) as ours, h5py.File(published) as theirs:
        assert ours.keys() == theirs.keys() and ours.attrs.keys() == theirs.attrs.keys()
        assert {name: item.dtype for name, item in ours.items()} == {name: item.dtype for name, item in theirs.items()}
        assert ours["velocity"].shape == (4, 3, 16, 16, 2)
        assert ours["particles"].shape == (4, 3, 16, 16, 1)
        assert ours["force"].shape == (4, 16, 16, 2)
        np.testing.assert_allclose(ours["t"][:2], theirs["t"][:, :3], rtol=1e-6)
        assert ours.attrs["latestIndex"] == 2
        ours_say, theirs_say = (yaml.safe_load(file.attrs["config"]) for file in (ours, theirs))
        for name in ("NU", "domain_size", "smoothness", "scale", "force_smoothness", "force_scale", "seed"):
            assert ours_say[name] == theirs_say[name], name
    with h5py.File(paths[1]) as last:
        assert last["velocity"].shape[0] == 1
