"""What a model is told besides a history: given fields, and parameters."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from matey import MateyConfig
from matey.model.given import ranges_of, united
from matey.model.prepare import prepare
from matey.model.transfer import transfer
from matey.tokens.normalisation import normalisation_of
from tests.support.laws import law
from tests.support.models import VOCABULARY, make_batch, make_model

GIVEN = ("force", "depth")
FIELDS = (*VOCABULARY, *GIVEN)
TOLD = {"given": GIVEN, "parameters": ("viscosity", "mach")}


def told_model(**settings):
    """A model that takes given fields and parameters, with weights of all as if it were trained."""
    model = make_model(fields=FIELDS, **{**TOLD, **settings})
    if model.told is not None:
        torch.nn.init.normal_(model.told.contract.weight, std=0.3)
    return model


def told(batch, seed=5, num_frames=None):
    """The batch with two given fields, up to four frames after its history or constant in time, and parameters."""
    frames = num_frames or batch.num_frames + 4
    random = torch.Generator().manual_seed(seed)
    given = torch.randn(batch.num_samples, frames, 2, *batch.grid, generator=random, dtype=torch.float64)
    parameters = {"viscosity": 10.0 ** -torch.arange(batch.num_samples), "seed": torch.tensor(7.0)}
    return replace(batch, given_fields=GIVEN, given=given.to(batch.history.dtype), parameters=parameters)


BATCH = make_batch(dtype=torch.float64, num_samples=3)


@pytest.fixture(scope="module")
def model():
    return told_model()


def test_a_model_that_is_told_nothing_has_no_weight_for_it_and_forecasts_as_before():
    model = make_model()
    assert model.told is None
    assert torch.equal(model.predict(told(BATCH)), model.predict(BATCH))


def test_what_is_new_changes_no_forecast_of_a_pretrained_model_before_it_is_trained():
    source = make_model()
    target = make_model(fields=FIELDS, trained=False, **TOLD)
    result = transfer(source, target, dict.fromkeys(GIVEN, "zero"))
    assert torch.equal(target.predict(BATCH), source.predict(BATCH))
    assert torch.allclose(target.predict(told(BATCH)), source.predict(BATCH), rtol=0, atol=1e-13)
    assert "New parameters: viscosity, mach; they change no forecast before they are trained." in result.sentences


def test_a_model_keeps_what_it_knows_of_parameters_beside_new_ones(model):
    target = make_model(fields=FIELDS, trained=False, given=GIVEN, parameters=("mach", "reynolds", "viscosity"))
    transfer(model, target, {})
    batch = told(BATCH)
    batch = replace(batch, parameters={**batch.parameters, "reynolds": torch.tensor(100.0)})
    assert torch.allclose(target.predict(batch), model.predict(batch), rtol=0, atol=1e-13)


@pytest.mark.parametrize("network", ["matey", "paper"])
def test_given_fields_and_parameters_change_the_forecast_and_are_not_predicted(network):
    model = told_model(network=network)
    batch = told(BATCH)
    predicted = model.predict(batch)
    assert predicted.shape == BATCH.target.shape
    others = (
        replace(batch, given=2 * batch.given - batch.given.roll(3, dims=-1)),
        replace(batch, given_fields=(), given=None),
        replace(batch, parameters={"viscosity": torch.full((3,), 0.5)}),
        replace(batch, parameters={}),
    )
    for other in others:
        assert ((model.predict(other) - predicted).flatten(1).norm(dim=1) > 1e-6).all()


def test_cells_see_given_fields_in_the_cells_around(model):
    batch = told(BATCH, num_frames=1)
    cells = torch.zeros(1, 1, 1, 1, 32, 32, dtype=torch.float64)
    cells[..., 8, 8] = 1e-3
    with model.without_tokens():
        change = model.predict(replace(batch, given=batch.given + cells)) - model.predict(batch)
    far = change[..., 24:, 24:].abs().max()  # there it counts in the statistics of the whole field alone
    assert change[..., 6:11, 6:11].abs().max() > 10 * far


def test_where_to_refine_is_decided_without_given_fields(model):
    assert torch.equal(model.count_tokens(told(BATCH)), model.count_tokens(BATCH))


def test_an_unknown_parameter_is_one_that_is_not_there(model):
    batch = told(BATCH)
    unknown = replace(batch, parameters={"viscosity": batch.parameters["viscosity"], "mach": torch.tensor(torch.nan)})
    assert torch.equal(model.predict(unknown), model.predict(batch))
    some = replace(batch, parameters={"viscosity": torch.tensor([1, torch.nan, 0.01])})
    predicted, known, without = (model.predict(each) for each in (some, batch, replace(batch, parameters={})))
    assert torch.allclose(predicted[1], without[1], rtol=0, atol=1e-13)
    assert torch.allclose(predicted[[0, 2]], known[[0, 2]], rtol=0, atol=1e-13)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30, 1e30])
def test_parameters_of_any_size_give_finite_forecasts(model, value):
    assert model.predict(replace(BATCH, parameters={"viscosity": value})).isfinite().all()


def test_each_sample_sees_what_is_given_up_to_its_own_target_and_nothing_beyond(model):
    batch = told(replace(BATCH, lead_time=torch.tensor([1, 3, 2])))
    expected = model.predict(batch)
    for sample, lead in enumerate((1, 3, 2)):
        beyond, at = batch.given.clone(), batch.given.clone()
        beyond[sample, 2 + lead :] += 1
        at[sample, 1 + lead, :, :, :8] += 1
        assert torch.equal(model.predict(replace(batch, given=beyond))[sample], expected[sample])
        assert not torch.allclose(model.predict(replace(batch, given=at))[sample], expected[sample], atol=1e-6)


def test_a_constant_field_is_the_same_as_one_that_stands_still(model):
    batch = told(BATCH, num_frames=1)
    still = replace(batch, given=batch.given.expand(-1, 6, -1, -1, -1, -1))
    assert torch.allclose(model.predict(batch), model.predict(still), rtol=0, atol=1e-12)


def test_adding_a_sample_of_another_system_changes_nothing_for_one_that_is_told(model):
    other = make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, (1, 32, 16), seed=1, dtype=torch.float64)
    with torch.no_grad():
        alone, (_, together) = model([told(BATCH)]), model([other, told(BATCH)])
    assert torch.allclose(alone[0].field(), together.field(), rtol=0, atol=1e-12)


def test_what_is_given_has_to_reach_the_target(model):
    batch = told(replace(BATCH, lead_time=torch.tensor([1, 5, 1])))
    with pytest.raises(ValueError, match="expected force, depth in 7 frames, up to the target, got 6"):
        model.predict(batch)


def test_given_names_are_rows_of_the_vocabulary():
    with pytest.raises(ValueError, match="given names 'force', which is not in the vocabulary"):
        MateyConfig(VOCABULARY, given=("force",))


def test_given_fields_of_another_precision_do_not_change_that_of_the_model():
    model, batch = told_model().float(), told(make_batch(dtype=torch.float32, num_samples=3))
    precise = replace(batch, given=batch.given.double())
    assert prepare([precise], model.config).scales[0].dtype == torch.float32
    assert torch.equal(model.predict(precise), model.predict(batch))


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
    ("scales", "words"),
    [
        ({"density": [[0, 0], [1, 1]]}, "scales of 'density' must be"),
        ({"density": [[1, 0, 0], [0, 0, 0]]}, "scales of 'density' must be"),
        ({"density": [[0, 0, 0], [1, 1, float("inf")]]}, "scales of 'density' must be"),
        ([[0, 0, 0], [1, 1, 1]], "scales must hold names"),
    ],
)
def test_ranges_that_are_none_are_refused_with_what_they_should_be(scales, words):
    with pytest.raises(ValueError, match=words):
        MateyConfig(fields=["density"], scales=scales)
