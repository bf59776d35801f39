"""The local operator beside a loop over cells, and its laws."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from matey.model import local
from matey.model.given import Rows
from matey.model.ladder import wide_inputs
from matey.model.local import LocalOperator, TilesInBoxes, _along, _weights_along, local_inputs
from matey.tokens.patches import cover, patchify
from matey.tokens.region import Region
from matey.tokens.tiles import Frames, Tiles
from tests.model.cell_by_cell import cell_by_cell, layer_by_layer
from tests.support.laws import law
from tests.support.models import make_model

PLANE, SPACE, LINE = ((1, 1, 8, 8), (1, 1, 4, 4)), ((1, 4, 4, 4), (1, 2, 2, 2)), ((1, 1, 1, 4),)
TILE = {PLANE: (1, 1, 4, 4), SPACE: (1, 2, 2, 2), LINE: (1, 1, 1, 4)}
WIDTH, CHANNELS, ROWS = 8, 3, 4
CASES = [
    (PLANE, (1, 8, 8), (False, False, False)),
    (PLANE, (1, 6, 7), (False, True, False)),
    (PLANE, (1, 8, 5), (False, True, True)),
    (PLANE, (1, 1, 9), (False, False, True)),
    (SPACE, (4, 4, 4), (True, False, True)),
    (SPACE, (3, 5, 2), (False, True, True)),
    (LINE, (2, 3, 6), (True, True, True)),
]


def operator(patches, scales=(1,), *, cascade=False, layers=()):
    torch.manual_seed(0)
    local = LocalOperator(patches, ROWS, WIDTH, CHANNELS, scales, cascade=cascade, layers=layers).double()
    for parameter in local.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return local


def whole(patches, grid, periodic, num_samples=2):
    """All tiles of some samples."""
    frames = Frames(num_samples, (1, *grid), periodic, cover((1, *grid), patches[0])[1:])
    tile = TILE[patches]
    shape = [num_samples, *(size // cells for size, cells in zip(frames.covered, tile[1:], strict=True))]
    row = torch.arange(math.prod(shape))
    return Tiles(frames, tile, row, torch.ones(len(row), *tile[1:], dtype=torch.bool))


def some(tiles, row):
    return replace(tiles, row=row, places=tiles.places[row])


def changes(local, inputs, tiles, conditions, rows):
    """The changes in some tiles, from the inputs of whole fields."""
    wide, tiles = [], [TilesInBoxes.dealt(part, part.tile) for part in tiles]
    for fields, part in zip(inputs, tiles, strict=True):
        whole_domain = Region.whole(fields, part.boxes[0].frames.periodic)
        wide.append(wide_inputs(whole_domain, part.boxes, local.ladder))
    rows = [row if isinstance(row, Rows) else Rows(row, row) for row in rows]
    return local.changes(wide, tiles, conditions, rows)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(grid, num_fields=2, num_samples=2):
    """Inputs, conditions and the rows of the fields."""
    inputs, conditions = random(num_samples, 2, num_fields, *grid), random(num_samples, WIDTH, seed=1)
    return inputs, conditions, torch.tensor([2, 0, 3][:num_fields])


def all_ladders(test):
    ladders = {
        "cells": ((1,), {}),
        "means": ((3, 1, 8), {}),
        "cascade": ((1, 1, 3), {"cascade": True}),
        "network": ((1, 3), {"cascade": True, "layers": (2, 1)}),
        "uneven": ((2, 3), {"cascade": True, "layers": (1, 1)}),
    }
    return pytest.mark.parametrize(("scales", "kind"), ladders.values(), ids=ladders)(test)


@law(("patches", "grid", "periodic"), CASES, quick=(CASES[3], CASES[5], CASES[6]))
@all_ladders
def test_every_cell_equals_a_loop_over_cells_and_there_is_nothing_beyond_the_grid(
    patches, grid, periodic, scales, kind
):
    local, tiles = operator(patches, scales, **kind), whole(patches, grid, periodic)
    inputs, conditions, rows = inputs_of(grid)
    (predicted,) = changes(local, [inputs], [tiles], conditions, [rows])
    reference = layer_by_layer if kind.get("layers") else cell_by_cell
    expected = reference(local, inputs, conditions, rows, periodic)
    assert torch.allclose(tiles.put(predicted), expected, atol=1e-12)
    z, y, x = (covered - size for covered, size in zip(tiles.frames.covered, grid, strict=True))
    padded = F.pad(expected, (0, x, 0, y, 0, z))
    assert torch.allclose(predicted.flatten(1), patchify(padded[:, None], tiles.tile).flatten(1), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", [{}, {"cascade": True, "layers": (1, 1)}])
def test_what_is_out_of_the_ordinary_changes_in_proportion_not_by_its_square(kind):
    local, tiles = operator(PLANE, (1, 3), **kind), whole(PLANE, (1, 8, 8), (False, False, False))
    inputs, conditions, rows = inputs_of((1, 8, 8))
    inputs[..., 4, 4] = 100
    (change,), (larger,) = (changes(local, [scale * inputs], [tiles], conditions, [rows]) for scale in (100, 100_000))
    assert larger.abs().max() < 1010 * change.abs().max()


@law(("patches", "grid", "periodic"), CASES[:6], quick=(CASES[1], CASES[5]))
@all_ladders
def test_any_tiles_have_the_cells_that_the_whole_frame_has_there(patches, grid, periodic, scales, kind):
    local, tiles = operator(patches, scales, **kind), whole(patches, grid, periodic)
    inputs, conditions, rows = inputs_of(grid)
    (expected,) = changes(local, [inputs], [tiles], conditions, [rows])
    for seed, number in enumerate([0, 1, 1, 2, 3, len(tiles.row) - 1]):
        order = torch.randperm(len(tiles.row), generator=torch.Generator().manual_seed(seed))
        row = order[:number].sort().values
        (predicted,) = changes(local, [inputs], [some(tiles, row)], conditions, [rows])
        assert predicted.shape == (len(row), *expected.shape[1:])
        assert torch.allclose(predicted, expected[row], atol=1e-12)


@pytest.mark.parametrize("layers", [(), (1, 1)])
def test_a_rank_without_tiles_has_gradients_of_zero_for_every_parameter(layers):
    local, tiles = operator(PLANE, (1, 4), cascade=True, layers=layers), whole(PLANE, (1, 8, 8), (False,) * 3)
    inputs, conditions, rows = inputs_of((1, 8, 8))
    (predicted,) = changes(local, [inputs], [some(tiles, tiles.row[:0])], conditions, [rows])
    predicted.sum().backward()
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in local.parameters())


@pytest.mark.parametrize("layers", [(), (1, 1)])
def test_groups_are_predicted_as_each_by_itself(layers):
    local, periodic = operator(PLANE, (1, 1), cascade=True, layers=layers), (False, True, False)
    grids, fields = [(1, 8, 8), (1, 5, 9), (1, 4, 4)], [2, 3, 1]
    tiles = [whole(PLANE, grid, periodic, number) for number, grid in enumerate(grids, start=1)]
    inputs, conditions, rows = zip(
        *(inputs_of(grid, f, n) for n, (grid, f) in enumerate(zip(grids, fields, strict=True), start=1)), strict=True
    )
    together = changes(local, inputs, tiles, torch.cat(conditions), rows)
    for group in range(3):
        (alone,) = changes(local, [inputs[group]], [tiles[group]], conditions[group], [rows[group]])
        assert torch.allclose(together[group], alone, atol=1e-12)


@pytest.mark.parametrize("layers", [(), (1,)])
def test_the_order_of_the_fields_does_not_matter(layers):
    local, tiles = operator(PLANE, cascade=True, layers=layers), whole(PLANE, (1, 8, 8), (False,) * 3)
    inputs, conditions, rows = inputs_of((1, 8, 8), num_fields=3)
    order = torch.tensor([2, 0, 1])
    (predicted,) = changes(local, [inputs], [tiles], conditions, [rows])
    (shuffled,) = changes(local, [inputs[:, :, order]], [tiles], conditions, [rows[order]])
    assert torch.allclose(shuffled, predicted[:, order], atol=1e-12)


@pytest.mark.parametrize("layers", [(), (1, 1)])
def test_a_new_operator_predicts_no_change_and_can_learn(layers):
    local = make_model(((1, 1, 8, 8), (1, 1, 4, 4)), trained=False, local_scales=(1, 2), local_layers=layers).local
    tiles, rows = whole(PLANE, (1, 8, 8), (False,) * 3), torch.tensor([2, 0])
    inputs, conditions = inputs_of((1, 8, 8))[0], random(2, 24, seed=1)
    (predicted,) = changes(local, [inputs], [tiles], conditions, [rows])
    assert torch.equal(predicted, torch.zeros_like(predicted))
    (predicted * random(*predicted.shape, seed=2)).sum().backward()
    names = (
        ("field_stencil", "field_linear", "field_out") if layers else ("field_stencils", "field_linear", "field_out")
    )
    assert all((getattr(local.schemes[0], name).grad[rows] != 0).all() for name in names)


@pytest.mark.parametrize("layers", [(), (2, 1)])
def test_gradients_of_weights_and_of_the_fields_themselves_are_those_of_differences(layers):
    local = operator(PLANE, (1, 2), cascade=True, layers=layers)
    tiles = whole(PLANE, (1, 4, 5), (False, True, False), num_samples=1)
    inputs, conditions, rows = inputs_of((1, 4, 5), num_samples=1)

    def predict(inputs, *_weights):
        return changes(local, [inputs], [tiles], conditions, [rows])[0]

    assert torch.autograd.gradcheck(predict, (inputs.requires_grad_(), *local.parameters()), fast_mode=True)


def test_it_sees_the_last_frame_and_the_change_in_units_of_its_size():
    normalised, size = random(2, 3, 2, 1, 4, 4), 1 + random(2, 2).abs()
    inputs = local_inputs(normalised, size)
    assert torch.equal(inputs[:, 0], normalised[:, -1])
    change = inputs[:, 1] * size[..., None, None, None]
    assert torch.allclose(normalised[:, -1] - change, normalised[:, -2])
    assert torch.equal(local_inputs(normalised[:, :1], size)[:, 1], torch.zeros_like(change))


@pytest.mark.parametrize("layers", [(), (1, 1)])
def test_a_given_field_is_an_input_to_the_changes_of_the_others_and_has_none(layers):
    local = operator(PLANE, (1, 1), cascade=True, layers=layers)
    tiles = whole(PLANE, (1, 8, 8), (False, True, True))
    inputs, conditions, rows = inputs_of((1, 8, 8), num_fields=3)
    predicted = [] if layers else [local.schemes[0].field_predicted]
    for weight in predicted:
        weight.data[rows[2]] = 0  # nobody predicts a given field
    (of_all,) = changes(local, [inputs], [tiles], conditions, [rows])
    for weight in (*(scheme.field_weight for scheme in local.schemes), *predicted):
        weight.data *= math.sqrt(2 / 3)  # the sum over inputs is divided by the root of what is predicted
    (of_two,) = changes(local, [inputs], [tiles], conditions, [Rows(rows, rows[:2])])
    assert torch.allclose(of_two, of_all[:, :2], atol=1e-12)


@pytest.mark.parametrize("kind", [{}, {"cascade": True}, {"cascade": True, "layers": (1, 2)}])
@law(("patches", "grid"), [(PLANE, (1, 13, 8)), (SPACE, (7, 4, 4)), (LINE, (2, 3, 8))], quick=[(SPACE, (7, 4, 4))])
def test_a_large_grid_is_predicted_slab_by_slab_with_the_same_gradients(monkeypatch, patches, grid, kind):
    local, tiles = operator(patches, (1, 2), **kind), whole(patches, grid, (False, True, True))
    inputs, conditions = torch.randn(2, 2, 2, *grid).double(), torch.randn(2, WIDTH).double()
    found = []
    for kept in (2**24, 12):
        monkeypatch.setattr("matey.model.slabs.KEPT_AT_ONCE", kept)
        (predicted,) = changes(local, [inputs], [tiles], conditions, [torch.tensor([0, 2])])
        gradients = torch.autograd.grad(predicted.square().sum(), list(local.parameters()))
        found.append((predicted.detach(), *gradients))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * (1 + ours.abs().max().item()))


@pytest.mark.parametrize("kept", [2**24, 12])
@pytest.mark.parametrize("layers", [(), (2, 1)])
def test_second_derivatives_are_refused_rather_than_wrong(monkeypatch, layers, kept):
    monkeypatch.setattr("matey.model.slabs.KEPT_AT_ONCE", kept)
    local = operator(PLANE, (1, 2), cascade=True, layers=layers)
    inputs, conditions, rows = inputs_of((1, 8, 8))
    (predicted,) = changes(local, [inputs], [whole(PLANE, (1, 8, 8), (False,) * 3)], conditions, [rows])
    with pytest.raises(RuntimeError, match="Local operators have no second derivatives"):
        torch.autograd.grad(predicted.square().sum(), list(local.parameters()), create_graph=True)


@pytest.mark.parametrize(("fine", "coarse"), [(1, 8), (2, 8), (1, 3), (2, 3)])
def test_a_long_axis_is_interpolated_piece_by_piece_with_the_same_gradient(monkeypatch, fine, coarse):
    values = random(2, 403, 3).requires_grad_()
    to = slice((2 - 5) * coarse // fine, (403 - 7) * coarse // fine)

    def found(most):
        sizes = []

        def weights(*arguments):
            sizes.append(_weights_along(*arguments).numel())
            return _weights_along(*arguments)

        monkeypatch.setattr(local, "DENSE", most)
        monkeypatch.setattr(local, "_weights_along", weights)
        result = _along(values[..., None], 1, slice(-5, 398), coarse, to, fine)
        (gradient,) = torch.autograd.grad((result * random(*result.shape, seed=1)).sum(), values)
        return result, gradient, max(sizes)

    whole, pieces = found(2**30), found(2**10)
    for one, other in zip(whole[:2], pieces[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert pieces[2] < whole[2] / 2
