"""Random initial states of the gas against the laws of their distributions and the published files."""

import numpy as np
import pytest
import torch

from matey.simulate.compressible_initial import LEAST_DENSITY, plane_waves, rand, turbulence, window


def spectrum(fields):
    return torch.fft.fft2(fields).abs() / fields[0].numel()


@pytest.mark.parametrize("draw", [rand, turbulence])
def test_a_seed_gives_the_same_state_and_another_seed_another(draw):
    assert torch.equal(draw(3, 16, 0.1), draw(3, 16, 0.1))
    assert (draw(3, 16, 0.1) - draw(4, 16, 0.1))[2:].abs().max() > 0.01


def test_resolution_only_samples_the_same_waves_more_finely():
    coarse, fine = (spectrum(plane_waves(np.random.default_rng(1), 2, size)) for size in (16, 48))
    torch.testing.assert_close(coarse[:, :5, :5], fine[:, :5, :5])
    assert coarse[:, 1:5, 1:5].min() > 1e-3


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


def test_waves_are_those_of_the_published_files(published_rand, published_turbulence):
    waves = plane_waves(np.random.default_rng(0), 2, 64)
    pairs = ((waves, published_rand[0, 0, :2]), (turbulence(0, 64, 1.0)[2:], published_turbulence[0, 0, 2:]))
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


def expanding_part(velocity):
    wave = torch.fft.fftfreq(velocity.shape[-1], 1 / velocity.shape[-1], dtype=torch.float64)
    amplitude = torch.fft.fft2(velocity)
    squared = (wave[:, None] ** 2 + wave**2).clamp(min=1)
    along = (wave[:, None] * amplitude[0] + wave * amplitude[1]).abs().square() / squared
    return (along.sum() / amplitude.abs().square().sum()).item()


def test_turbulence_expands_as_little_as_the_published_one(published_turbulence):
    for velocity in [turbulence(seed, 64, 1.0)[2:] for seed in range(5)] + list(published_turbulence[:, 0, 2:]):
        assert 0.01 < expanding_part(velocity) < 0.15


def test_window_is_one_inside_and_zero_outside():
    inside = window((np.array([0.25, 0.1]), np.array([0.75, 0.6])), 64)
    assert inside[32, 20] == pytest.approx(1, abs=1e-6)
    assert inside[2, 20] < 1e-6 and inside[32, 50] < 1e-6
    assert inside[16, 20] == pytest.approx(0.5 * (1 + np.tanh(0.5 / 64 / 0.01)))
