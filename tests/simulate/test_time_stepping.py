"""Laws of the Runge-Kutta steps: their order, their independence of the batch, and their complaint about a blow-up."""

import pytest
import torch

from matey.simulate.time_stepping import heun, integrate, legendre_limit, runge_kutta_4, runge_kutta_legendre


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
