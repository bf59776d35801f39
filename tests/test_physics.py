"""Conserved quantities and divergence, beside analytic fields, plain loops in NumPy, and what the solvers conserve."""

from itertools import product

import numpy as np
import pytest
import torch

from matey import FieldBatch
from matey.data import open_dataset, read_windows, spread_windows
from matey.metrics import NRMSE_EPSILON, correlation, nrmse, vrmse
from matey.physics import CONSERVED, MEASURES, components_of
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from matey.tokens.normalisation import TINY
from tests.support.laws import law

GAS = ("velocity_x", "velocity_y", "density", "pressure")


def batch_of(frame, fields, system="any", spacing=(1.0, 1.0, 1.0), periodic=(False, True, True)):
    return FieldBatch(system, tuple(fields), frame[:, None], torch.ones(len(frame)), spacing=spacing, periodic=periodic)


def divergence_of(frame, fields, vector="velocity", **geometry):
    return MEASURES[f"divergence_{vector}"].number(frame, batch_of(frame, fields, **geometry))


def circle(num):
    return 2 * np.pi * torch.arange(num, dtype=torch.float64) / num


@pytest.mark.parametrize("vector", ["velocity", "magnetic"])
def test_the_abc_flow_has_no_divergence_in_space(vector):
    z, y, x = torch.meshgrid(circle(8), circle(12), circle(16), indexing="ij")
    flow = [z.sin() + y.cos(), 2 * x.sin() + z.cos(), y.sin() + 2 * x.cos()]
    names = [f"{vector}_{axis}" for axis in "xyz"]
    frame = torch.stack([*flow, flow[0]])[None]
    assert divergence_of(frame, [*names, "density"], vector, periodic=(True,) * 3).item() < 1e-12
    frame[:, 0] += x.sin()
    assert divergence_of(frame, [*names, "density"], vector, periodic=(True,) * 3).item() == pytest.approx(1)


@pytest.mark.parametrize("periodic", [(True, True, True), (False, True, False), (False, False, False)])
def test_divergence_is_that_of_plain_loops(periodic):
    frame, spacing = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64), (0.3, 1.0, 2.0)
    found = divergence_of(frame, ("velocity_z", "velocity_y", "velocity_x"), spacing=spacing, periodic=periodic)
    sizes = frame.shape[2:]
    for sample, own in zip(found, frame.numpy(), strict=True):
        total = parts = 0.0
        for place in product(*map(range, sizes)):
            if any(not w and p in (0, s - 1) for p, s, w in zip(place, sizes, periodic, strict=True)):
                continue
            slopes = []
            for axis in range(3):
                ahead, behind = list(place), list(place)
                ahead[axis], behind[axis] = (place[axis] + 1) % sizes[axis], place[axis] - 1
                slopes.append((own[axis][tuple(ahead)] - own[axis][tuple(behind)]) / (2 * spacing[axis]))
            total, parts = total + sum(slopes) ** 2, parts + sum(s**2 for s in slopes)
        assert sample.item() == pytest.approx((total / parts) ** 0.5)


def test_the_vertical_wind_of_a_slice_lies_along_y():
    frame = torch.randn(1, 2, 1, 8, 8)
    assert components_of("velocity", batch_of(frame, ("velocity_x", "velocity_z"))) == {
        1: "velocity_z",
        2: "velocity_x",
    }
    assert components_of("velocity", batch_of(frame, ("velocity_x", "density"))) is None
    assert divergence_of(frame, ("velocity_x", "density")) is None


@pytest.mark.parametrize("names", [GAS, GAS[::-1]])
def test_conserved_quantities_of_a_gas_are_those_of_numpy(names):
    last, frame = torch.rand(2, 3, 4, 1, 6, 8, dtype=torch.float64) + 0.5
    batch = batch_of(last, names, "compressible_rand")
    before, now = (dict(zip(names, f.numpy().swapaxes(0, 1), strict=True)) for f in (last, frame))

    def energy(f):
        return (f["pressure"] * 1.5 + f["density"] * (f["velocity_x"] ** 2 + f["velocity_y"] ** 2) / 2).sum((1, 2, 3))

    def momentum(f):
        return np.stack([(f["density"] * f[f"velocity_{axis}"]).sum((1, 2, 3)) for axis in "xy"])

    def size(f):
        return (f["density"] * np.hypot(f["velocity_x"], f["velocity_y"])).sum((1, 2, 3))

    expected = {
        "energy": abs(energy(now) - energy(before)) / np.maximum(energy(now), energy(before)),
        "momentum": np.linalg.norm(momentum(now) - momentum(before), axis=0) / np.maximum(size(now), size(before)),
    }
    for name, drift in expected.items():
        assert MEASURES[name].number(frame, batch).numpy() == pytest.approx(drift)


def test_one_part_in_a_hundred_more_is_a_drift_of_a_hundredth_and_rest_has_none():
    frame = torch.rand(1, 4, 1, 6, 8) + 1
    batch = batch_of(frame, GAS, "compressible_turb")
    more = frame.clone()
    more[:, 2] *= 1.01
    assert MEASURES["mass"].number(more, batch).item() == pytest.approx(0.01 / 1.01, rel=1e-4)
    frame[:, :2] = 0
    assert MEASURES["momentum"].number(frame, batch_of(frame, GAS, "compressible_turb")).item() == 0


def test_a_wall_takes_up_momentum_and_is_not_asked_for_it():
    names = ("density", "potential_temperature", "velocity_x", "velocity_z")
    frame = torch.rand(1, 4, 1, 6, 8)
    batch = batch_of(frame, names, "colliding_thermals", periodic=(False, False, True))
    falling = frame.clone()
    falling[:, 3] -= 1
    assert MEASURES["momentum"].number(falling, batch).item() == 0
    assert MEASURES["momentum"].number(falling, batch_of(frame, names, "colliding_thermals")).item() > 0
    assert MEASURES["energy"].number(frame, batch) is None


@law("system", CONSERVED, quick=["compressible_turb"])
def test_what_is_declared_conserved_is_so_in_what_the_solver_makes(system, tmp_path):
    make(tmp_path, SYSTEMS[system].ensemble(num_trajectories=1, resolution=32, num_frames=8, first_seed=0))
    data = open_dataset(tmp_path)
    (batch,) = read_windows([data], spread_windows(data, [0], 1, 5, 2), 1)
    for name in CONSERVED[system]:
        drift = MEASURES[name].number(batch.known_target, batch)
        assert drift is not None and drift.max() < 2e-5, name


def field(*cells):
    return torch.tensor(cells, dtype=torch.float64).reshape(1, 1, 1, 1, -1)


@pytest.mark.parametrize("metric", [nrmse, vrmse, correlation])
def test_each_sample_and_field_has_an_error_of_its_own(metric):
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 2, 5, 6)
    errors = metric(prediction, target)
    assert errors.shape == (3, 4)
    assert torch.allclose(errors[1:2, 2:3], metric(prediction[1:2, 2:3], target[1:2, 2:3]))


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e6])
def test_errors_do_not_depend_on_the_unit(unit):
    prediction, target = field(280.01, 280.02, 280.04), field(280.01, 280.03, 280.05)
    assert vrmse(target.mean().expand(target.shape), target).item() == pytest.approx((2 / 3) ** 0.5, rel=1e-3)
    for error in (nrmse, vrmse):
        assert error(unit * prediction, unit * target).item() == pytest.approx(error(prediction, target).item())


def test_the_vrmse_of_a_constant_and_of_a_single_cell_is_finite():
    constant = torch.full((1, 1, 1, 1, 4), 101325.0)
    assert vrmse(constant.nextafter(2 * constant), constant).item() < 0.1, "a step of rounding"
    assert vrmse(field(4), field(2)).item() == pytest.approx(1)


def test_a_zero_field_predicted_at_the_normalisation_floor_has_an_error_of_order_one():
    zero = torch.zeros(1, 1, 1, 4, 4)
    assert nrmse(torch.full_like(zero, TINY), zero).item() == pytest.approx(TINY / NRMSE_EPSILON)
    assert nrmse(zero, zero).item() == 0


def test_nrmse_of_an_exact_prediction_has_a_finite_gradient():
    prediction = torch.ones(1, 1, 1, 2, 2, requires_grad=True)
    nrmse(prediction, torch.ones(1, 1, 1, 2, 2)).sum().backward()
    assert prediction.grad.isfinite().all()


def test_the_correlation_is_that_of_numpy_in_any_unit():
    prediction, target = torch.randn(2, 2, 3, 1, 5, 6)
    for unit, shift in ((1.0, 0.0), (1e-3, 1e-3), (1e5, -1e6)):
        found = correlation(unit * prediction.double() + shift, target)
        for sample, field in np.ndindex(2, 3):
            pair = (f[sample, field].numpy().ravel() for f in (prediction, target))
            assert found[sample, field].item() == pytest.approx(np.corrcoef(*pair)[0, 1], rel=1e-6)


def test_constant_fields_correlate_with_each_other_alone():
    assert correlation(field(2, 2), field(5, 5)).item() == 1
    assert correlation(field(1, 2), field(5, 5)).item() == pytest.approx(0, abs=1e-6)
    assert correlation(field(2, 2), field(5, 6)).item() == pytest.approx(0, abs=1e-6)
