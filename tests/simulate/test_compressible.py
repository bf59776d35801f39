"""Compressible flow against the published solver, exact solutions and its conservation laws.

Random initial states of the gas against the laws of their distributions and the published files.

Files of compressible flow against those of the published generator.
"""

import math

import h5py
import numpy as np
import pytest
import torch

from matey.simulate.catalogue import SYSTEMS
from matey.simulate.compressible import (
    LEAST_DENSITY,
    IdealGas,
    navier_stokes,
    plane_waves,
    rand,
    turbulence,
)
from matey.simulate.ensemble import make
from matey.simulate.finite_volume import FiniteVolume, extrapolation
from matey.simulate.time_stepping import heun, integrate
from tests.support.laws import law
from tests.support.paths import published_file

FRAMES = torch.arange(21, dtype=torch.float64) * 0.05
VISCOUS = 0.01


def kinetic_energy(fields):
    return 0.5 * (fields[:, :, 0] * fields[:, :, 2:].square().sum(2)).mean((2, 3))


def total_energy(fields):
    return kinetic_energy(fields) + 1.5 * fields[:, :, 1].mean((2, 3))


PUBLISHED = {
    "compressible_rand": "cfd_rand/2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_64_Train.hdf5",
    "compressible_turb": "cfd_turb/2D_CFD_Turb_M1.0_Eta1e-08_Zeta1e-08_periodic_64_Train.hdf5",
}


def published_gas(system):
    """Return density, pressure and velocity of a published file, ``(b, t, f, x, y)``."""
    with h5py.File(published_file(PUBLISHED[system])) as file:
        fields = [torch.from_numpy(file[field][:]).double() for field in ("density", "pressure", "Vx", "Vy")]
        return torch.stack(fields, dim=2)


@pytest.fixture(scope="module")
def published_turbulence():
    return published_gas("compressible_turb")


def random_gas(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.rand(*shape[:1], 4, *shape[1:], dtype=torch.float64, generator=generator)
    fields[:, :2] += 1
    return fields


@pytest.mark.whole
def test_turbulence_agrees_with_the_published_solver(published_turbulence):
    ours = navier_stokes(published_turbulence[:, 0], FRAMES, 0.0)
    error = (ours - published_turbulence).norm(dim=(3, 4)) / published_turbulence.norm(dim=(3, 4))
    assert error[:, 3].max() < 0.04
    assert (kinetic_energy(ours) / kinetic_energy(published_turbulence) - 1).abs().max() < 0.006
    assert (total_energy(ours) / total_energy(ours)[:, :1] - 1).abs().max() < 1e-12


@pytest.mark.whole
def test_small_sound_wave_travels_at_its_speed_and_converges_with_second_order():
    def error(num_cells):
        place = (torch.arange(num_cells, dtype=torch.float64) + 0.5) / num_cells
        wave = 1e-4 * torch.sin(2 * math.pi * place)
        # Into gas of density 1 and pressure 3/5, where sound travels at 1: once around in a unit of time.
        fields = torch.stack((1 + wave, 0.6 + wave, wave, 0 * wave))[None, :, :, None].expand(1, 4, num_cells, 4)
        last = navier_stokes(fields, torch.tensor([0.0, 1.0]), 0.0)[0, 1]
        return (last - fields[0])[2].abs().mean().item() / 1e-4

    assert error(64) < 0.012
    assert math.log2(error(64) / error(128)) > 1.75


@pytest.mark.whole
def test_sods_shock_tube_has_the_exact_states():
    num_cells = 400
    place = (torch.arange(num_cells, dtype=torch.float64) + 0.5) / num_cells - 0.5
    left = place < 0
    tube = torch.stack((torch.where(left, 1.0, 0.125), torch.where(left, 1.0, 0.1), torch.zeros(num_cells)))
    law = IdealGas(adiabatic_index=1.4)
    engine = FiniteVolume(law, (1 / num_cells,), (extrapolation,))
    times = torch.tensor([0.0, 0.2])
    *_, last = integrate(law.conserved(tube[None].double()), times, engine.rate, engine.largest_step, heun)
    density, pressure, velocity = law.primitive(last)[0]

    # Toro, Riemann Solvers and Numerical Methods, table 4.3: star region, both sides of the contact.
    for where, expected in ((0.13, 0.42632), (0.25, 0.26557)):
        cell = int((where + 0.5) * num_cells)
        assert density[cell] == pytest.approx(expected, rel=0.002)
        assert pressure[cell] == pytest.approx(0.30313, rel=0.002)
        assert velocity[cell] == pytest.approx(0.92745, rel=0.002)
    assert place[density > 0.2].max() == pytest.approx(1.75216 * 0.2, abs=2 / num_cells)  # the shock
    assert density.max() <= 1 + 1e-9 and density.min() >= 0.125 - 1e-9


def test_contact_and_shear_layer_at_rest_stay_sharp():
    fields = torch.ones(1, 4, 16, 16, dtype=torch.float64)
    fields[:, 0, 8:] = 5.0  # density jumps, pressure does not
    fields[:, 2] = 0
    fields[:, 3, 8:] = -1.0  # slides along the jump
    last = navier_stokes(fields, torch.tensor([0.0, 1.0]), 0.0)[:, 1]
    torch.testing.assert_close(last, fields, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("component", "stiffness"), [(3, 1.0), (2, 4 / 3 + 1)])
def test_shear_decays_with_eta_and_stretching_with_four_thirds_eta_and_zeta(component, stiffness):
    place = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    fields = torch.zeros(1, 4, 64, 4, dtype=torch.float64)
    fields[:, 0], fields[:, 1] = 2.0, 1e-5  # so cold that sound moves nothing in this time
    fields[:, component] = 1e-5 * torch.sin(2 * math.pi * place)[:, None]
    last = navier_stokes(fields, torch.tensor([0.0, 0.5]), VISCOUS)[:, 1]
    decay = (last[:, component] * fields[:, component]).sum() / fields[:, component].square().sum()
    expected = math.exp(-0.01 * stiffness * (2 * math.pi) ** 2 * 0.5)
    assert decay.item() == pytest.approx(expected, rel=2e-3)


def test_swapping_the_axes_swaps_the_future():
    fields = random_gas(0, 1, 10, 14)
    last = navier_stokes(fields, torch.tensor([0.0, 0.1]), VISCOUS)[:, 1]
    swapped = navier_stokes(fields[:, [0, 1, 3, 2]].transpose(2, 3), torch.tensor([0.0, 0.1]), VISCOUS)[:, 1]
    torch.testing.assert_close(swapped[:, [0, 1, 3, 2]].transpose(2, 3), last, rtol=0, atol=1e-12)


def spectrum(fields):
    return torch.fft.fft2(fields).abs() / fields[0].numel()


def test_speed_and_contrast_are_as_asked():
    windowed = 0
    for seed in range(40):
        density, pressure, *velocity = rand(seed, 32, 0.3)
        assert min(density.min() / density.mean(), pressure.min() / pressure.mean()) > LEAST_DENSITY / 1.3
        speed = torch.stack(velocity).norm(dim=0).mean()
        sound = (5 / 3 * pressure.mean() / density.mean()).sqrt()
        if density[0, 0] == density[-1, -1]:
            windowed += 1
            assert speed < 0.25 * sound
            assert velocity[0][0, 0].abs() < 1e-6 * speed
        else:
            assert speed / sound == pytest.approx(0.3, rel=1e-9)
            assert 0.009 < (density / density.mean() - 1).abs().mean() < 0.201
    assert 10 < windowed < 30


def test_waves_are_those_of_the_published_files(published_turbulence):
    waves = plane_waves(np.random.default_rng(0), 2, 64)
    pairs = (
        (waves, published_gas("compressible_rand")[0, 0, :2]),
        (turbulence(0, 64, 1.0)[2:], published_turbulence[0, 0, 2:]),
    )
    for ours, theirs in pairs:
        occupied = [(spectrum(fields) > 1e-5 * spectrum(fields).max()).any(0) for fields in (ours, theirs)]
        occupied[0][0, 0] = occupied[1][0, 0]  # the mean
        assert torch.equal(*occupied)


def test_turbulence_is_published_in_what_it_fixes(published_turbulence):
    density, pressure, *velocity = turbulence(5, 64, 1.0)
    torch.testing.assert_close(density, published_turbulence[0, 0, 0])
    torch.testing.assert_close(pressure.float(), published_turbulence[0, 0, 1].float())
    assert torch.stack(velocity).norm(dim=0).mean() == pytest.approx(1.0)
    assert turbulence(5, 16, 0.1)[1].unique().item() == pytest.approx(60)  # as the release at M 0.1


@law("system", PUBLISHED, quick=["compressible_turb"])
def test_file_is_laid_out_as_the_published_one(system, tmp_path):
    published = published_file(PUBLISHED[system])
    ensemble = SYSTEMS[system].ensemble(num_trajectories=1, resolution=16)
    (ours,) = make(tmp_path, ensemble)
    assert ours.name == published.name.replace("_64_", "_16_")
    with h5py.File(ours) as our_file, h5py.File(published) as their_file:
        assert our_file.keys() == their_file.keys()
        for name, theirs in their_file.items():
            assert our_file[name].dtype == theirs.dtype == np.float32
            assert our_file[name].ndim == theirs.ndim and our_file[name].chunks is theirs.chunks is None
        np.testing.assert_allclose(our_file["t-coordinate"], their_file["t-coordinate"], rtol=2e-7)
        np.testing.assert_array_equal(our_file["x-coordinate"][0], 0.5 / 16)
        theirs = dict(their_file.attrs)
        assert {name: value for name, value in our_file.attrs.items() if name != "config"} == theirs
        assert our_file["Vx"].shape == (1, 21, 16, 16)
