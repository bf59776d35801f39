"""The network on the cells, and its tokens as the coarse scales of it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from matey.model.cells import CellsAfter, CellsBefore, Reach, Sides, order_of
from matey.model.modules import Rows, unpacked
from matey.model.transfer import transfer
from tests.support.models import VOCABULARY, make_batch, make_model

CHANNELS, WIDTH, FIELDS = 6, 8, 3
ROWS = Rows(torch.tensor([0, 2]), torch.tensor([0, 2]))
WHOLE = ((False, False),) * 3  # nowhere does the domain go on


def network(patches, seed=0):
    torch.manual_seed(seed)
    reach = Reach.along(patches, before=1, after=2)
    halves = CellsBefore(reach, FIELDS, WIDTH, CHANNELS), CellsAfter(reach, FIELDS, WIDTH, CHANNELS)
    for half in halves:
        for weight in half.double().parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return halves, reach


def changes(halves, inputs, conditions, sides):
    """The change of the fields without tokens, ``(b, f, z, y, x)``."""
    before, after = halves
    (features,) = unpacked(before([inputs], conditions, [ROWS], [sides]), before.shapes([inputs], [sides]))
    changed = after([inputs], [features], conditions, [ROWS], [sides])
    box = sides.without_halo(inputs, before.reach.inputs).shape[-3:]
    return changed.view(len(inputs), len(ROWS.predicted), *box)


def wrapped(inputs, axis, side, reach):
    """Inputs of a side of a periodic axis with the halo around it."""
    length = inputs.shape[axis]
    return inputs.index_select(axis, torch.arange(side.start - reach, side.stop + reach) % length)


@pytest.mark.parametrize("wraps", [(False, False, False), (False, True, False), (False, True, True)])
def test_a_box_with_its_halo_gives_what_the_whole_domain_gives_there(wraps):
    halves, reach = network([(1, 1, 8, 8)])
    inputs, conditions = (
        torch.randn(2, 2, 2, 1, 24, 40, dtype=torch.float64),
        torch.randn(2, WIDTH, dtype=torch.float64),
    )
    whole = changes(halves, inputs, conditions, Sides(WHOLE, wraps))
    far = reach.inputs[2]
    middle = changes(
        halves,
        inputs[..., 16 - far : 24 + far],
        conditions,
        Sides(((False, False), (False, False), (True, True)), wraps),
    )
    torch.testing.assert_close(middle, whole[..., 16:24])
    corner = inputs[..., : 16 + far] if not wraps[2] else wrapped(inputs, 5, slice(0, 16), far)
    corner = corner[..., : 8 + far, :] if not wraps[1] else wrapped(corner, 4, slice(0, 8), far)
    inside = (False, False), (wraps[1], True), (wraps[2], True)
    torch.testing.assert_close(changes(halves, corner, conditions, Sides(inside, wraps)), whole[..., :8, :16])


def test_a_box_in_three_dimensions_gives_what_the_whole_domain_gives_there():
    halves, reach = network([(1, 4, 4, 4)])
    inputs, conditions = torch.randn(1, 2, 2, 20, 8, 8, dtype=torch.float64), torch.randn(1, WIDTH, dtype=torch.float64)
    wraps, far = (False, True, False), reach.inputs[0]
    whole = changes(halves, inputs, conditions, Sides(WHOLE, wraps))
    top = changes(
        halves, inputs[..., 12 - far :, :, :], conditions, Sides(((True, False), (False, False), (False, False)), wraps)
    )
    torch.testing.assert_close(top, whole[..., 12:, :, :])


def test_a_shift_of_a_periodic_domain_shifts_the_changes():
    halves, _ = network([(1, 1, 8, 8)])
    inputs, conditions = (
        torch.randn(1, 2, 2, 1, 16, 16, dtype=torch.float64),
        torch.randn(1, WIDTH, dtype=torch.float64),
    )
    sides = Sides(WHOLE, (False, True, True))
    shifted = changes(halves, inputs.roll((3, 5), (-2, -1)), conditions, sides)
    torch.testing.assert_close(shifted, changes(halves, inputs, conditions, sides).roll((3, 5), (-2, -1)))


def test_a_box_without_samples_has_gradients():
    halves, _ = network([(1, 1, 8, 8)])
    empty = changes(
        halves,
        torch.zeros(0, 2, 2, 1, 8, 8, dtype=torch.float64),
        torch.zeros(0, WIDTH, dtype=torch.float64),
        Sides(WHOLE, (False, True, True)),
    )
    empty.sum().backward()
    assert all(weight.grad is not None for half in halves for weight in half.parameters())


@pytest.mark.parametrize(("shape", "reach"), [((1, 2, 3, 4), (1, 2)), ((1, 1, 3, 2, 4), (1, 0, 2))])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_periodic_axis_goes_on_as_in_pytorch_and_is_differentiable_twice(shape, reach, side_by_side):
    values = torch.randn(shape, dtype=torch.float64)
    if side_by_side:
        values = values.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    sides = Sides(((False, False),) * 3, (True,) * 3)
    padding = [far for each in reversed(reach) for far in (each, each)]

    def padded(values):
        return sides.padded(values, (0,) * (5 - len(shape)) + reach)

    found = padded(values)
    assert found.equal(F.pad(values, padding, mode="circular")) and order_of(found) == order_of(values)
    assert torch.autograd.gradgradcheck(lambda values: padded(values).square(), values.requires_grad_())


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
