"""The scales that a network is told, and their ranges in training."""

import dataclasses

import pytest
import torch

from matey import MateyConfig
from matey.model.scales import ranges_of, united
from matey.tokens.normalisation import normalisation_of
from tests.support.laws import law
from tests.support.models import make_batch, make_model


@pytest.fixture(scope="module")
def batch():
    return make_batch(dtype=torch.float64)


def ranges_in(batch):
    return ranges_of(normalisation_of(batch.history).scales(), batch.fields)


def in_units(batch, factor):
    return dataclasses.replace(batch, history=factor * batch.history, target=factor * batch.target)


def model_with(ranges):
    model = make_model()
    model.config.scales = ranges
    return model


def test_within_its_ranges_a_model_forecasts_as_without_them_to_the_last_bit(batch):
    expected = make_model().predict(batch)
    assert torch.equal(model_with(ranges_in(batch)).predict(batch), expected)
    assert torch.equal(model_with({"activator": [[0.0] * 3, [0.0] * 3]}).predict(batch), expected)


@law("factor", [100.0, 1e-3], quick=[1e-3])
def test_beyond_its_ranges_units_of_a_field_do_not_matter(batch, factor):
    known, without = model_with(ranges_in(batch)), make_model()
    scaled = [model.predict(in_units(batch, factor)) for model in (known, without)]
    more = [model.predict(in_units(batch, factor**2)) for model in (known, without)]
    close = [torch.allclose(one, factor * other, rtol=1e-9) for one, other in zip(more, scaled, strict=True)]
    assert close == [True, False]


def test_ranges_of_several_batches_hold_all_of_them(batch):
    other = ranges_in(in_units(make_batch(seed=1, dtype=torch.float64), 3))
    total = united([ranges_in(batch), other, {"tracer": [[0.0] * 3, [1.0] * 3]}])
    for low, high in (ranges_in(batch)["water_height"], other["water_height"]):
        assert all(a <= b for a, b in zip(total["water_height"][0], low, strict=True))
        assert all(a >= b for a, b in zip(total["water_height"][1], high, strict=True))
    assert total["tracer"] == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize(
    "bounds",
    [
        [[0, 0], [1, 1]],
        [[1, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 1, float("inf")]],
        "all",
        3,
        [0, 0, 0, 1, 1, 1],
        [[0, 0, 0], [10**400, 1, 1]],
    ],
)
def test_ranges_that_are_none_are_refused_with_what_they_should_be(bounds):
    with pytest.raises(
        ValueError, match=r"scales of 'density' must be \[\[low, low, low\], \[high, high, high\]\], got"
    ):
        MateyConfig(fields=["density"], scales={"density": bounds})


def test_a_saved_model_keeps_its_ranges(tmp_path, batch):
    model = model_with(ranges_in(batch))
    model.save_pretrained(tmp_path)
    assert MateyConfig.from_pretrained(tmp_path).scales == model.config.scales


@pytest.mark.parametrize("ranges", [3, "all", [[0, 0, 0], [1, 1, 1]]])
def test_ranges_without_names_of_fields_are_refused(ranges):
    with pytest.raises(ValueError, match="scales must name fields, each with .*, got"):
        MateyConfig(fields=["density"], scales=ranges)
