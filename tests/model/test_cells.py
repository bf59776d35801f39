"""The network on the cells, in boxes and in the whole domain."""

import pytest
import torch
import torch.nn.functional as F

from matey.model.cells import CellsAfter, CellsBefore, Reach, Sides, order_of
from matey.model.modules import Rows

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
    (features,) = before.features(before([inputs], conditions, [ROWS], [sides]), [inputs], [sides])
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


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_periodic_axis_shorter_than_the_halo_goes_round_several_times(size):
    sides, values = Sides(((False, False),) * 3, (True,) * 3), torch.randn(2, 3, size, 4, dtype=torch.float64)
    places = torch.arange(-2, size + 2) % size
    assert torch.equal(sides.padded(values, (0, 2, 0)), values[:, :, places])
    assert torch.autograd.gradcheck(lambda values: sides.padded(values, (0, 2, 0)), values.requires_grad_())
