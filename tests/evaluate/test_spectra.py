import math

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.records import ErrorSums
from matey.evaluate.spectra import SpectraSums, radial_power, with_power

PERIODIC, WALLS = (True, True, True), (False, False, False)


def wave(num_y, num_x, along_y, along_x, amplitude=1.0):
    """A wave with so many cycles along y and x, ``(1, 1, 1, y, x)``."""
    y, x = torch.meshgrid(torch.arange(num_y) / num_y, torch.arange(num_x) / num_x, indexing="ij")
    return amplitude * torch.cos(2 * math.pi * (along_y * y + along_x * x))[None, None, None]


def test_a_wave_has_its_power_at_its_wavenumber_in_any_direction():
    for along in ((4, 0), (0, 4), (3, 3)):
        wavenumbers, power = radial_power(wave(32, 32, *along, amplitude=3), (1, 0.5, 0.5), PERIODIC)
        assert wavenumbers.tolist() == pytest.approx([k / 16 for k in range(1, 17)])
        assert power[0, 0].argmax() == 3
        assert power[0, 0, [0, 1, 2, *range(4, 16)]].max() < 1e-12 * power.max()


def test_a_ramp_between_walls_has_no_power_at_small_scales():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 1, 64, 64)
    (_, walls), (_, periodic) = (radial_power(ramp, (1, 1, 1), around) for around in (WALLS, PERIODIC))
    assert walls[0, 0, 16] < 1e-3 * periodic[0, 0, 16]


def test_spectra_are_means_over_windows_and_windows_on_another_grid_are_left_out():
    sums = SpectraSums()
    for frames, copies in ((wave(16, 16, 2, 0), 1), (wave(16, 16, 2, 0, amplitude=2), 3), (wave(8, 8, 2, 0), 1)):
        frames = frames.repeat(copies, 1, 1, 1, 1)
        batch = FieldBatch("gas", ("density",), frames[:, None], torch.ones(copies), periodic=PERIODIC)
        sums.add(batch, "rollout", 9, frames / 2, frames)
    (spectra,) = sums.spectra()
    one = radial_power(wave(16, 16, 2, 0), (1, 1, 1), PERIODIC)[1][0]
    assert spectra.truth.numpy() == pytest.approx((one * (1 + 3 * 4) / 4).numpy())
    assert spectra.forecast.numpy() == pytest.approx(spectra.truth.numpy() / 4)
    assert spectra.error.numpy() == pytest.approx(spectra.truth.numpy() / 4)


def test_sums_that_are_merged_are_those_of_all_windows_in_their_order():
    large, small = wave(16, 16, 2, 0), wave(8, 8, 2, 0)
    whole, merged = SpectraSums(), SpectraSums()
    for chunk in ([large], [small, large, 2 * large], [large]):
        sums = SpectraSums()
        for frames in chunk:
            batch = FieldBatch("gas", ("density",), frames[:, None], torch.ones(1), periodic=PERIODIC)
            for each in (whole, sums):
                each.add(batch, "rollout", 9, frames / 2, frames)
        merged.merge(sums)
    (expected,), (found,) = whole.spectra(), merged.spectra()
    assert found.truth.shape == expected.truth.shape and found.truth.numpy() == pytest.approx(expected.truth.numpy())


def test_the_end_of_a_rollout_has_the_power_of_each_third_of_wavenumbers():
    truth = torch.randn(1, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    fine, coarse = wave(16, 16, 7, 0), wave(16, 16, 1, 0)
    truth = 0.01 * truth + fine + coarse
    forecast = truth - 0.5 * fine * torch.tensor([1, 0]).view(2, 1, 1, 1)  # of one field's fine waves a half is lost
    batch = FieldBatch("gas", ("density", "tracer"), truth[:, None], torch.ones(1), periodic=PERIODIC)
    sums, errors = SpectraSums(), ErrorSums()
    sums.add(batch, "rollout", 2, forecast, truth)
    for step in (1, 2):
        errors.add(batch, "rollout", step, forecast, truth)
    records = with_power(errors.records(), sums.spectra())
    assert [r.lead for r in records if "power_fine" in r.physics] == [2] and records[-1].field == "all"
    found = records[-1].physics
    assert found["power_fine"] == pytest.approx(0.5, rel=0.01) and found["power_coarse"] == pytest.approx(1)
    assert found["truth_power_fine"] == 1 and "correlation_time" in found
    tiny = SpectraSums()
    tiny.add(batch, "rollout", 2, *(each[..., :4, :4] for each in (forecast, truth)))
    assert not any("power_fine" in r.physics for r in with_power(errors.records(), tiny.spectra()))


def test_a_slender_domain_whose_sides_share_no_wavenumber_has_no_spectra():
    frames, sums = wave(16, 16, 2, 0), SpectraSums()
    batch = FieldBatch("air", ("t",), frames[:, None], torch.ones(1), spacing=(1, 1, 3e4), periodic=PERIODIC)
    sums.add(batch, "rollout", 9, frames, frames)
    assert sums.spectra() == []
