"""Compressible flow against the published solver, exact solutions and its conservation laws."""

import math

import pytest
import torch

from matey.simulate.compressible import Gas, IdealGas, navier_stokes
from matey.simulate.finite_volume import FiniteVolume, extrapolation
from matey.simulate.time_stepping import heun, integrate

FRAMES = torch.arange(21, dtype=torch.float64) * 0.05
VISCOUS = Gas(shear_viscosity=0.01, bulk_viscosity=0.01)


def kinetic_energy(fields):
    return 0.5 * (fields[:, :, 0] * fields[:, :, 2:].square().sum(2)).mean((2, 3))


def total_energy(fields):
    return kinetic_energy(fields) + 1.5 * fields[:, :, 1].mean((2, 3))


def momentum(fields):
    return (fields[:, :, :1] * fields[:, :, 2:]).mean((3, 4))


def random_gas(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.rand(*shape[:1], 4, *shape[1:], dtype=torch.float64, generator=generator)
    fields[:, :2] += 1
    return fields


@pytest.mark.whole
@pytest.mark.parametrize("chosen", [slice(0, 1), pytest.param(slice(1, None), marks=pytest.mark.slow)])
def test_viscous_flow_agrees_with_the_published_solver(chosen, published_rand):
    published_rand = published_rand[chosen]
    ours = navier_stokes(published_rand[:, 0], FRAMES, VISCOUS)
    error = (ours - published_rand).norm(dim=(3, 4)) / published_rand.norm(dim=(3, 4))
    assert error.max() < 0.01
    waves = published_rand - published_rand.mean((3, 4), keepdim=True)  # the means tell nothing
    assert ((ours - published_rand).norm(dim=(3, 4)) / waves.norm(dim=(3, 4))).max() < 0.02

    mass = ours[:, :, 0].mean((2, 3))
    assert (mass / mass[:, :1] - 1).abs().max() < 1e-12
    assert (momentum(ours) - momentum(ours)[:, :1]).abs().max() < 1e-12
    assert (total_energy(ours) / total_energy(ours)[:, :1] - 1).abs().max() < 1e-12
    assert (kinetic_energy(ours)[:, -1] < 0.1 * kinetic_energy(ours)[:, 0]).all()


@pytest.mark.whole
def test_turbulence_agrees_with_the_published_solver(published_turbulence):
    ours = navier_stokes(published_turbulence[:, 0], FRAMES, Gas())
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
        last = navier_stokes(fields, torch.tensor([0.0, 1.0]), Gas())[0, 1]
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
    last = navier_stokes(fields, torch.tensor([0.0, 1.0]), Gas())[:, 1]
    torch.testing.assert_close(last, fields, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("component", "stiffness"), [(3, 1.0), (2, 4 / 3 + 0.5)])
def test_shear_decays_with_eta_and_stretching_with_four_thirds_eta_and_zeta(component, stiffness):
    gas = Gas(shear_viscosity=0.01, bulk_viscosity=0.005)
    place = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    fields = torch.zeros(1, 4, 64, 4, dtype=torch.float64)
    fields[:, 0], fields[:, 1] = 2.0, 1e-5  # so cold that sound moves nothing in this time
    fields[:, component] = 1e-5 * torch.sin(2 * math.pi * place)[:, None]
    last = navier_stokes(fields, torch.tensor([0.0, 0.5]), gas)[:, 1]
    decay = (last[:, component] * fields[:, component]).sum() / fields[:, component].square().sum()
    expected = math.exp(-0.01 * stiffness * (2 * math.pi) ** 2 * 0.5)
    assert decay.item() == pytest.approx(expected, rel=2e-3)


def test_swapping_the_axes_swaps_the_future():
    fields = random_gas(0, 1, 10, 14)
    last = navier_stokes(fields, torch.tensor([0.0, 0.1]), VISCOUS)[:, 1]
    swapped = navier_stokes(fields[:, [0, 1, 3, 2]].transpose(2, 3), torch.tensor([0.0, 0.1]), VISCOUS)[:, 1]
    torch.testing.assert_close(swapped[:, [0, 1, 3, 2]].transpose(2, 3), last, rtol=0, atol=1e-12)


@pytest.mark.whole
def test_a_moving_frame_changes_nothing_but_the_place():
    # After a period of the boost, the flow is back where it was; only truncation differs.
    place = (torch.arange(48, dtype=torch.float64) + 0.5) / 48
    wave = 0.05 * torch.sin(2 * math.pi * place)[:, None] * torch.cos(2 * math.pi * place)
    rest = torch.stack((1 + wave, 0.6 + wave, wave, -wave.T))[None]
    moving = rest.clone()
    moving[:, 2] += 2.0
    times = torch.tensor([0.0, 0.5])
    last, moved = navier_stokes(rest, times, VISCOUS)[:, 1], navier_stokes(moving, times, VISCOUS)[:, 1]
    moved[:, 2] -= 2.0
    assert (moved - last).abs().max() < 0.03 * 0.05


def test_neighbours_in_the_batch_change_no_bit():
    fields = random_gas(2, 3, 9, 9)
    times = torch.tensor([0.0, 0.05, 0.1])
    together = navier_stokes(fields, times, VISCOUS)
    assert torch.equal(together, torch.cat([navier_stokes(one[None], times, VISCOUS) for one in fields]))
