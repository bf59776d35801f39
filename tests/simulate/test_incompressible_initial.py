"""Noise against its spectrum and that of the published file."""

import h5py
import numpy as np
import pytest
import torch

from matey.simulate.incompressible_initial import noise, noise_in_box
from tests.support.paths import published_file


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


def test_force_has_no_waves_longer_than_its_scale_allows():
    power = power_by_wave(noise(np.random.default_rng(0), 64, scale=0.15, smoothness=3.0).numpy())
    assert power[:2].max() < 1e-20 * power[2]  # two waves per axis are the longest


def test_published_noise_falls_as_fast():
    with h5py.File(published_file("incompressible/ns_incom_inhom_2d_64-1.h5")) as file:
        theirs = sum(power_by_wave(field) for field in file["particles"][:, 0, :, :, 0])
    ours = sum(power_by_wave(noise_in_box(seed, 64)[0].tracer.numpy()) for seed in range(20))
    slopes = [np.polyfit(np.log(np.arange(8, 30)), np.log(power[8:30]), 1)[0] for power in (ours, theirs)]
    assert slopes[0] == pytest.approx(slopes[1], abs=0.3)


def test_a_seed_gives_the_same_flow_and_nothing_crosses_the_walls():
    (flow, force), (again, _), (other, _) = noise_in_box(1, 16), noise_in_box(1, 16), noise_in_box(2, 16)
    assert torch.equal(flow.velocity, again.velocity) and not torch.equal(flow.tracer, other.tracer)
    for faces in (flow.velocity, force):
        assert faces[0, -1].abs().max() == faces[1, :, -1].abs().max() == 0
