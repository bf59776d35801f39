"""The engine: steps in time by their order, and finite volumes against exact solutions of the shallow-water equations."""

import math

import pytest
import torch

from matey.simulate.finite_volume import FiniteVolume, extrapolation, periodic
from matey.simulate.shallow_water import ShallowWater
from matey.simulate.time_stepping import heun, integrate, legendre_limit, runge_kutta_4, runge_kutta_legendre

LAW = ShallowWater(gravity=1.0)


def run(initial, time, spacing, boundary):
    engine = FiniteVolume(LAW, spacing, boundary)
    *_, last = integrate(initial, torch.tensor([0.0, time]), engine.rate, engine.largest_step, heun)
    return last


def simple_wave(place, time):
    """Return depth and momentum of a wave travelling right into v = 2 (c - 1), whose crests travel at 3 c - 2."""
    origin = place.clone()
    for _ in range(200):
        celerity = 1 + 0.05 * torch.sin(2 * math.pi * origin)
        origin = place - (3 * celerity - 2) * time
    return torch.stack((celerity**2, celerity**2 * 2 * (celerity - 1)))[None]


@pytest.mark.whole
def test_smooth_wave_converges_with_second_order():
    def error(num_cells):
        centres = (torch.arange(num_cells, dtype=torch.float64) + 0.5) / num_cells
        last = run(simple_wave(centres, 0.0), 0.5, (1 / num_cells,), (periodic,))
        return (last - simple_wave(centres, 0.5)).abs().mean().item()

    assert error(128) < 1e-3
    assert math.log2(error(128) / error(256)) > 1.85


def stoker_dam_break(place, time, left=2.0, right=1.0):
    """Return the exact depth behind a broken straight dam at 0 over a wet bed (Stoker 1957, g = 1)."""

    def mismatch(depth):  # of velocities behind the shock and at the foot of the rarefaction
        shock = (depth - right) * math.sqrt((depth + right) / (2 * depth * right))
        return shock - 2 * (math.sqrt(left) - math.sqrt(depth))

    low, high = right, left
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mismatch(middle) < 0 else (low, middle)
    velocity = 2 * (math.sqrt(left) - math.sqrt(low))
    shock_speed = low * velocity / (low - right)
    fan = (2 * math.sqrt(left) - place / time) ** 2 / 9
    depth = torch.where(place < shock_speed * time, low, right).to(torch.float64)
    depth = torch.where(place < (velocity - math.sqrt(low)) * time, fan, depth)
    return torch.where(place < -math.sqrt(left) * time, left, depth)


@pytest.mark.whole
def test_straight_dam_break_is_stokers_solution():
    def error(num_cells):
        centres = (torch.arange(num_cells, dtype=torch.float64) + 0.5) * 2 / num_cells - 1
        depth = torch.where(centres < 0, 2.0, 1.0).to(torch.float64)
        last = run(torch.stack((depth, 0 * depth))[None], 0.5, (2 / num_cells,), (extrapolation,))[0, 0]
        assert last.max() <= 2 + 1e-12 and last.min() >= 1 - 1e-12  # no overshoot at the shock
        return (last - stoker_dam_break(centres, 0.5)).abs().mean().item()

    assert error(200) < 4e-3
    assert error(200) / error(400) > 1.7  # first order, as at any discontinuity


def test_fast_expansion_holds_no_entropy_violating_jump():
    num_cells = 200
    centres = (torch.arange(num_cells, dtype=torch.float64) + 0.5) * 2 / num_cells - 1
    depth = torch.where(centres < 0, 20.0, 1.0).to(torch.float64)  # the fan reaches supercritical flow across x = 0
    last = run(torch.stack((depth, 0 * depth))[None], 0.1, (2 / num_cells,), (extrapolation,))[0, 0]
    assert (last - stoker_dam_break(centres, 0.1, left=20.0)).abs().mean() < 0.02 * 20
    fan = last[(centres > -0.4) & (centres < 0.1)]
    assert fan.diff().abs().max() < 3 * fan.diff().abs().median()


def random_flow(generator):
    state = torch.rand(2, 3, 12, 16, dtype=torch.float64, generator=generator)
    state[:, 0] += 1
    return state


def test_periodic_flow_conserves_mass_and_momentum():
    initial = random_flow(torch.Generator().manual_seed(0))
    last = run(initial, 1.0, (0.1, 0.1), (periodic, periodic))
    assert (last - initial).abs().max() > 0.1
    torch.testing.assert_close(last.sum((2, 3)), initial.sum((2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scheme", "order"), [(heun, 2), (runge_kutta_4, 4)])
def test_error_falls_with_the_order_of_the_scheme(scheme, order):
    def error(step):
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        oscillator = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        rate = lambda state: torch.stack((state[:, 1], -state[:, 0]), dim=1)  # noqa: E731
        *_, last = integrate(oscillator, times, rate, lambda state, time: torch.full((1,), step), scheme)
        return (last - torch.tensor([[times[1].cos(), -times[1].sin()]])).norm()

    assert error(1 / 20) / error(1 / 40) == pytest.approx(2**order, rel=0.1)


def test_a_trajectory_steps_as_if_it_were_alone():
    rates = torch.tensor([[1.0], [7.0], [60.0]], dtype=torch.float64)  # which need 1, 2 and 15 steps to each frame
    times = torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64)

    def solve(decay):
        return torch.stack(
            list(integrate(torch.ones_like(decay), times, lambda s: -decay * s, lambda s, t: 1 / decay[:, 0], heun))
        )

    alone = [solve(decay[None]) for decay in rates]
    assert torch.equal(solve(rates), torch.cat(alone, dim=1))


def test_blow_up_names_the_interval():
    state, times = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 0.5, 2.0])
    explosion = integrate(state, times, lambda s: s * s, lambda s, t: torch.full((1,), 0.1), heun)  # infinite at t = 1
    with pytest.raises(FloatingPointError, match="between t = 0.5 and t = 2"):
        list(explosion)


@pytest.mark.parametrize("num_stages", [3, 5, 9])
def test_legendre_stages_are_of_second_order_and_stable_up_to_their_limit(num_stages):
    def error(step):
        state = torch.ones(1, dtype=torch.float64)
        for _ in range(round(1 / step)):
            state = runge_kutta_legendre(lambda s: -s * s, state, torch.tensor(step, dtype=torch.float64), num_stages)
        return (state - 0.5).abs().item()  # s = 1 / (1 + t)

    assert error(1 / 20) / error(1 / 40) == pytest.approx(4, rel=0.1)
    decay = torch.linspace(0, legendre_limit(num_stages), 1001, dtype=torch.float64)
    after = runge_kutta_legendre(lambda s: -decay * s, torch.ones_like(decay), torch.tensor(1.0), num_stages)
    assert after.abs().max() <= 1 + 1e-12
    beyond = runge_kutta_legendre(lambda s: -1.6 * decay[-1] * s, torch.ones(1).double(), torch.tensor(1.0), num_stages)
    assert beyond.abs() > 1


@pytest.mark.parametrize("largest", [1e-9, 0.0])
def test_more_steps_than_come_to_an_end_are_refused(largest):
    state, times = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 0.5])
    with pytest.raises(
        FloatingPointError, match=r"From t = 0 to t = 0.5 the solver would take (5e\+08|inf) steps, more"
    ):
        list(integrate(state, times, lambda s: -s, lambda s, t: torch.full((1,), largest), heun))
