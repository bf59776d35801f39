"""The laws of a network whose tokens are the coarse scales of one on the cells."""

from dataclasses import replace

import torch

from matey.model.transfer import transfer
from tests.support.models import VOCABULARY, make_batch, make_model

SWE = make_batch(dtype=torch.float64)
REACTION = make_batch("diffusion_reaction", VOCABULARY[1:], 3, 2, (1, 32, 16), seed=1, dtype=torch.float64)
LEVELS = ((1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4))


def make(patches=((1, 1, 16, 16), (1, 1, 4, 4)), **settings):
    return make_model(patches, network="matey", **settings)


@torch.no_grad()
def fields(model, *batches):
    return [forecast.field() for forecast in model(batches)]


def test_what_children_give_is_added_to_what_their_parents_give():
    model = make(set="mul")
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


def test_weights_move_to_a_network_of_other_fields_and_more_levels():
    source, target = make(LEVELS[:2]), make(LEVELS, fields=(*VOCABULARY, "tracer"))
    reused = transfer(source, target, {"tracer": "zero"}).reused
    assert {name.split(".")[0] for name in reused} >= {"cells_before", "cells_after", "maps_before", "taking", "giving"}
    for name in ("cells_before.kernels", "maps_after.0.weight", "taking.0.stages.0.weight"):
        assert torch.equal(target.get_parameter(name), source.get_parameter(name))
    assert not any(name.startswith(("taking.2", "giving.2")) for name in reused)


def test_walls_between_neighbours_keep_a_shift_of_a_periodic_domain_a_shift():
    model, moved, axes = make(LEVELS[2:]), (0, 0, 0, 0, 8, 4), (0, 1, 2, 3, 4, 5)
    for parameter in model.position.parameters():
        parameter.data.zero_()  # the place in the domain is told to tokens
    around = replace(SWE, periodic=(False, True, True))
    shifted = replace(around, history=SWE.history.roll(moved, axes), target=SWE.target.roll(moved[1:], axes[:5]))
    model.config.rotary = False
    torch.testing.assert_close(fields(model, shifted)[0], fields(model, around)[0].roll(moved[1:], axes[:5]))
    assert (fields(model, replace(shifted, periodic=(False,) * 3))[0] - fields(model, shifted)[0]).abs().max() > 1e-6


def test_the_network_of_cells_is_the_cycle_without_what_tokens_give():
    cycle, cells = make(), make_model(network="cells")
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
