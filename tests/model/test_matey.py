"""The laws of the whole model."""

import re
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.model.transfer import transfer
from matey.tokens.normalisation import normalisation_of
from matey.tokens.refinement import refine
from tests.support.laws import law
from tests.support.models import VOCABULARY, make_batch, make_model

SWE = make_batch(dtype=torch.float64)
REACTION = make_batch("diffusion_reaction", VOCABULARY[1:], 3, 2, (1, 32, 16), seed=1, dtype=torch.float64)


SCHEMES = ["vit", "svit", "avit"]
NETWORKS = ["matey", "paper"]


@torch.no_grad()
def fields(model, *batches):
    return [forecast.field() for forecast in model(batches)]


def test_an_untrained_model_predicts_persistence():
    (predicted,) = fields(make_model(trained=False), SWE)
    assert torch.equal(predicted, SWE.last)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("fails", [False, True])
def test_without_tokens_their_weights_change_nothing_and_afterwards_all_is_as_it_was(network, fails):
    model, moved = (make_model(network=network) for _ in range(2))
    for name, weight in moved.named_parameters():
        if name.split(".")[0] in ("embeddings", "blocks", "giving", "maps_before", "decoders"):
            torch.nn.init.normal_(weight)
    (before,) = fields(model, SWE)
    assert not torch.allclose(fields(moved, SWE)[0], before, atol=1e-3)
    with suppress(KeyError), model.without_tokens(), moved.without_tokens():
        (without,), (of_moved,) = fields(model, SWE), fields(moved, SWE)
        if fails:
            raise KeyError
    assert torch.equal(without, of_moved) and not torch.allclose(without, before, atol=1e-3)
    assert torch.equal(fields(model, SWE)[0], before)


@law("scheme", SCHEMES, quick=["avit"])
def test_permuting_samples_permutes_results(scheme):
    order = torch.tensor([2, 0, 1])
    shuffled = replace(
        REACTION, history=REACTION.history[order], lead_time=REACTION.lead_time[order], target=REACTION.target[order]
    )
    model = make_model(scheme=scheme)
    assert torch.allclose(fields(model, shuffled)[0], fields(model, REACTION)[0][order], atol=1e-12)


@law("scheme", SCHEMES, quick=["vit", "avit"])
def test_adding_a_sample_of_another_system_or_the_same_changes_no_other_output(scheme):
    model = make_model(scheme=scheme)
    alone, together = fields(model, SWE)[0], fields(model, REACTION, SWE)[1]
    assert (alone - SWE.last).abs().max() > 1e-3
    assert torch.allclose(alone, together, atol=1e-12)
    history = torch.cat([SWE.history, 2 * SWE.history.flip(-1)])
    more = replace(SWE, history=history, lead_time=SWE.lead_time.repeat(2), target=SWE.target.repeat(2, 1, 1, 1, 1))
    assert torch.allclose(alone, fields(model, more)[0][:2], atol=1e-12)


def as_the_finer_of_two(model):
    """The weights of a model of one level, in one that has a coarser level as well."""
    of_level = re.compile(r"^(embeddings|taking|giving|decoders)\.0")
    return {of_level.sub(r"\1.1", name): value for name, value in model.state_dict().items()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("scheme", ["vit", "svit"])
def test_refining_everything_equals_the_uniform_fine_grid(scheme, network):
    fine = make_model(patches=((1, 1, 4, 4),), scheme=scheme, network=network)
    mixed = make_model(refine=0.0, scheme=scheme, network=network)
    mixed.load_state_dict(as_the_finer_of_two(fine), strict=False)
    assert mixed.count_tokens(SWE).tolist() == fine.count_tokens(SWE).tolist() == [128, 128]
    assert torch.allclose(fields(mixed, SWE)[0], fields(fine, SWE)[0], atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@law("scheme", SCHEMES, quick=["avit"])
def test_refining_nothing_equals_the_coarse_grid(scheme, network):
    coarse = make_model(patches=((1, 1, 16, 16),), scheme=scheme, network=network)
    mixed = make_model(refine=1.0, scheme=scheme, network=network)
    mixed.load_state_dict(coarse.state_dict(), strict=False)
    assert mixed.count_tokens(SWE).tolist() == [8, 8]
    assert torch.allclose(fields(mixed, SWE)[0], fields(coarse, SWE)[0], atol=1e-12)


def test_a_history_in_bfloat16_is_forecast_to_its_precision():
    model, batch = make_model(dtype=torch.float32), make_batch()
    rough = replace(batch, history=batch.history.bfloat16(), target=None)
    forecast, expected = model.predict(rough), model.predict(replace(rough, history=rough.history.float()))
    assert forecast.dtype == torch.bfloat16 and torch.allclose(forecast.float(), expected, rtol=0.02, atol=0.02)


@law("scheme", SCHEMES, quick=["avit"])
def test_what_is_decoded_for_children_is_added_to_what_is_for_their_parents(scheme):
    model = make_model(set="mul", scheme=scheme, network="paper", predict="change")
    coarse = make_model(patches=((1, 1, 16, 16),), scheme=scheme, network="paper", predict="change")
    coarse.load_state_dict({name: model.state_dict()[name] for name in coarse.state_dict()})
    (both,) = fields(model, SWE)
    last = [(decoder.field_weight.data, decoder.field_bias.data) for decoder in model.decoders]
    kept = [weight.clone() for weight in last[1]]
    for weight in last[1]:
        weight.zero_()
    (parents,) = fields(model, SWE)
    assert torch.allclose(parents, fields(coarse, SWE)[0], atol=1e-12)
    for zero, weight, value in zip(last[0], last[1], kept, strict=True):
        zero.zero_()
        weight.copy_(value)
    (children,) = fields(model, SWE)
    assert torch.allclose(both - SWE.last, parents + children - 2 * SWE.last, atol=1e-12)
    (split,) = refine(normalisation_of(SWE.history).apply(SWE.history), model.config.patches, model.config.refinement)
    refined = split.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, None].expand_as(children)
    changed = (children - SWE.last).abs() > 0
    assert torch.equal(changed, refined) and refined.any() and not refined.all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("network", NETWORKS)
@law("token_set", ["mix", "mul"], quick=["mul"])
@law("amount", [0.0, 0.3, 1.0], quick=[0.3])
def test_every_scheme_and_token_set_takes_three_levels_in_three_dimensions(scheme, network, token_set, amount):
    batch = make_batch(frames=2, grid=(8, 16, 24), num_samples=1, dtype=torch.float64)
    patches = ((2, 8, 8, 8), (2, 4, 4, 4), (1, 2, 2, 2))
    model = make_model(patches=patches, set=token_set, scheme=scheme, refine=amount, network=network)
    assert ((model.predict(batch) - batch.last).abs() > 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_grid_that_no_patch_divides_is_predicted_to_its_edge_as_on_the_fine_grid(network):
    batch = make_batch(grid=(1, 22, 29), dtype=torch.float64)
    fine, mixed = make_model(patches=((1, 1, 4, 4),), network=network), make_model(refine=0.0, network=network)
    mixed.load_state_dict(as_the_finer_of_two(fine), strict=False)
    assert mixed.count_tokens(batch).tolist() == fine.count_tokens(batch).tolist() == [2 * 6 * 8] * 2
    (predicted,) = fields(mixed, batch)
    assert predicted.shape == batch.last.shape and ((predicted - batch.last).abs() > 0).all()
    assert torch.allclose(predicted, fields(fine, batch)[0], atol=1e-12)


@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 16, 16)])
@pytest.mark.parametrize("token_set", ["mix", "mul"])
def test_one_frame_of_one_patch_of_one_sample_works_even_if_it_is_constant(grid, token_set):
    history = torch.full((1, 1, 1, *grid), 7.3, dtype=torch.float64)
    batch = replace(SWE, history=history, target=history[:, 0], lead_time=SWE.lead_time[:1])
    model = make_model(set=token_set)
    assert model.count_tokens(batch).tolist() == [1]
    assert model.predict(batch).isfinite().all()


def in_other_units(batch, factor, offset):
    """The batch, each field in units and from a zero of its own."""
    factor, offset = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1) for values in (factor, offset))
    return (
        replace(batch, history=factor * batch.history + offset, target=factor * batch.target + offset),
        factor,
        offset,
    )


def test_a_rate_is_the_change_in_units_of_the_last_one_times_the_lead_time():
    model = make_model(predict="change")
    (change,) = (of_batch - SWE.last for of_batch in fields(model, SWE))
    model.config.predict = "rate"
    (rate,) = (of_batch - SWE.last for of_batch in fields(model, SWE))
    found = normalisation_of(SWE.history)
    unit = found.change * SWE.lead_time[:, None] / found.std
    assert torch.allclose(rate, change * unit[..., None, None, None], atol=1e-12)


@law("predict", ["rate", "change", "field"], quick=["rate"])
def test_units_of_the_fields_scale_through_where_the_network_is_not_told_of_scales(predict):
    other, factor, offset = in_other_units(REACTION, [1000, 0.02], [-7, 300])
    model = make_model(statistics=False, predict=predict)
    (predicted,) = fields(model, REACTION)
    assert (predicted - REACTION.last).abs().max() > 1e-3
    assert torch.allclose(fields(model, other)[0], factor * predicted + offset, rtol=1e-10)


@pytest.mark.parametrize(("factor", "offset"), [([1000, 1], [0, 0]), ([1, 1], [0, 5])])
def test_a_network_that_is_told_of_scales_tells_units_apart(factor, offset):
    other, factor, offset = in_other_units(REACTION, factor, offset)
    model = make_model(statistics=True)
    (predicted,) = fields(model, REACTION)
    there = factor * predicted + offset
    assert ((fields(model, other)[0] - there).abs() > 1e-3 * factor * (predicted - REACTION.last).abs()).any()


def test_the_lead_time_matters():
    model = make_model()
    later = replace(SWE, lead_time=SWE.lead_time + 3)
    assert (fields(model, later)[0] - fields(model, SWE)[0]).abs().max() > 1e-4


def test_predicting_the_absolute_field_starts_from_the_mean():
    (predicted,) = fields(make_model(trained=False, predict="field"), SWE)
    mean = SWE.history.mean(dim=(1, 3, 4, 5))[..., None, None, None]
    assert torch.allclose(predicted, mean.expand_as(predicted))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient_even_of_a_level_without_tokens(network):
    model = make_model(refine=1.0, network=network)
    (forecast,) = model([SWE])
    (forecast.field() - SWE.target).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@law("scheme", SCHEMES, quick=["avit"])
def test_the_order_of_the_fields_does_not_matter(scheme):
    shuffled = replace(
        REACTION, fields=REACTION.fields[::-1], history=REACTION.history.flip(2), target=REACTION.target.flip(1)
    )
    model = make_model(scheme=scheme)
    assert torch.allclose(fields(model, shuffled)[0].flip(1), fields(model, REACTION)[0], atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("batch", [SWE, REACTION], ids=["one field", "two fields"])
def test_an_appended_field_leaves_the_rows_of_the_others_and_their_outputs_alone(batch, network):
    model = make_model(network=network)
    wider = MateyModel(MateyConfig.from_dict({**model.config.to_dict(), "fields": [*VOCABULARY, "tracer"]})).double()
    state = wider.state_dict()
    for name, value in model.state_dict().items():
        state[name][tuple(slice(0, size) for size in value.shape)] = value
    wider.load_state_dict(state)
    assert torch.equal(fields(wider.eval(), batch)[0], fields(model, batch)[0])


def test_saving_and_loading_is_bit_exact(tmp_path):
    model = make_model(dtype=torch.float32, scales={"activator": [[0.0] * 3, [1.0] * 3]})
    model.save_pretrained(tmp_path)
    loaded = MateyModel.from_pretrained(tmp_path)
    for name in ("patches", "fields", "scales"):
        assert getattr(loaded.config, name) == getattr(model.config, name)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    batch = make_batch()
    assert torch.equal(loaded.predict(batch), model.predict(batch))


def test_what_a_call_states_beside_a_saved_model_is_checked_like_the_file(tmp_path):
    make_model(dtype=torch.float32).save_pretrained(tmp_path)
    tokens = {"set": "uniform", "patches": [[1, 1, 4, 4]]}
    assert MateyConfig.from_pretrained(tmp_path, tokens=tokens, maps=1).patches == ((1, 1, 4, 4),)
    assert MateyModel.from_pretrained(tmp_path, drop_path=0.5).config.drop_path == 0.5
    with pytest.raises(ValueError, match="drop_path"):
        MateyModel.from_pretrained(tmp_path, drop_path=2.0)


def test_an_unknown_field_names_the_nearest_one():
    batch = make_batch(fields=("water_hight",))
    with pytest.raises(ValueError, match="no field 'water_hight'.*Did you mean 'water_height'"):
        make_model(dtype=torch.float32).predict(batch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_heads": 5}, "not a multiple of the 5 heads"),
        ({"layers": [0, 2]}, "layers"),
        ({"fields": ["u", "u"]}, "names a field twice"),
        ({"tokens": {"set": "uniform", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]}}, "one patch size"),
        ({"predict": "velocity"}, "model: predict: Input should be 'rate', 'change' or 'field'"),
        ({"refine": 0.1}, "refine belongs to tokens, as in the run YAML: tokens={'refine': 0.1}"),
        ({"tokens": {"refin": 0.1}}, "tokens: unknown key 'refin'. Did you mean 'refine'"),
        ({"netwrok": "paper"}, "MateyConfig takes no 'netwrok'. Did you mean 'network'"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        MateyConfig(**{"fields": ["density"], **wrong})


def test_what_children_give_is_added_to_what_their_parents_give():
    model = make_model(set="mul")
    given = []
    model.cells_after.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1][0].detach()))
    weights = [giving.weight.data.clone() for giving in model.giving]
    for parents, children in ((1, 1), (1, 0), (0, 1), (0, 0)):
        for giving, weight, factor in zip(model.giving, weights, (parents, children), strict=True):
            giving.weight.data.copy_(weight * factor)
        fields(model, SWE)
    both, of_parents, of_children, features = given
    torch.testing.assert_close(both + features, of_parents + of_children)
    assert ((of_parents - features).abs() > 0).all() and not ((of_children - features).abs() > 0).all()


def test_walls_between_neighbours_keep_a_shift_of_a_periodic_domain_a_shift():
    model, moved, axes = make_model(((1, 1, 4, 4),)), (0, 0, 0, 0, 8, 4), (0, 1, 2, 3, 4, 5)
    for parameter in model.position.parameters():
        parameter.data.zero_()  # the place in the domain is told to tokens
    around = replace(SWE, periodic=(False, True, True))
    shifted = replace(around, history=SWE.history.roll(moved, axes), target=SWE.target.roll(moved[1:], axes[:5]))
    model.config.rotary = False
    torch.testing.assert_close(fields(model, shifted)[0], fields(model, around)[0].roll(moved[1:], axes[:5]))
    assert (fields(model, replace(shifted, periodic=(False,) * 3))[0] - fields(model, shifted)[0]).abs().max() > 1e-6


def test_the_network_of_cells_is_the_cycle_without_what_tokens_give():
    cycle, cells = make_model(), make_model(network="cells")
    assert {name.split(".")[0] for name in cells.state_dict()} == {
        *("cells_before", "cells_after", "lead_time", "conditions")
    }
    cells.load_state_dict({name: cycle.state_dict()[name] for name in cells.state_dict()})
    with cycle.without_tokens():
        expected = fields(cycle, SWE, REACTION)
    assert all(map(torch.equal, fields(cells, SWE, REACTION), expected))
    taken = make_model(trained=False, network="cells")
    assert sum(transfer(cells, taken, {}).reused.values()) == cells.num_parameters()
    assert torch.equal(fields(taken, SWE)[0], fields(cells, SWE)[0])
    sum(forecast.field().sum() for forecast in cells.train()([SWE, REACTION])).backward()
    assert all(weight.grad is not None for weight in cells.parameters())
