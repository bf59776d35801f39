"""The local operator without convolutions, boxes and batches: its drawings, cell by cell and layer by layer."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F

from matey.model.stencil import NUM_STENCILS


def near(cell, step, length, wraps):
    return (cell + step) % length if wraps else min(max(cell + step, 0), length - 1)


def change_of(scheme, halo, inputs, told, rows, cell, periodic, before=None):
    """What the scheme's drawing says of one cell of each sample, ``(b, f)``; the cell may lie beyond the grid.

    In a cascade, ``before`` gives what the scheme before this one predicts in a cell, and this one adds to that.
    """
    num_fields, *grid = inputs.shape[2:]
    channels = scheme.channels
    factor, offset, factor_linear, factor_out, factor_stencils = told.split(
        [2 * channels, 2 * channels, 2 * channels, channels, NUM_STENCILS], dim=1
    )
    steps = [*itertools.product(*(range(-reach, reach + 1) for reach in halo))]  # w
    at = [[near(*along) for along in zip(cell, step, grid, periodic, strict=True)] for step in steps]
    values = inputs[..., *map(list, zip(*at, strict=True))]  # (b, 2, f, w)
    seen = torch.einsum("bifw, fwic -> bc", values, scheme.field_weight[rows])
    change = torch.einsum("bifw, fwis, bs -> bf", values, scheme.field_stencils[rows], 1 + factor_stencils)
    if before is not None:
        predicted = torch.stack([before(tuple(map(sum, zip(cell, step, strict=True)))) for step in steps], dim=-1)
        seen = seen + torch.einsum("bfw, fwc -> bc", predicted, scheme.field_predicted[rows])
    seen = seen / num_fields**0.5
    p, q = (seen * (1 + factor) + offset).split(channels, dim=1)
    mixed = F.gelu(scheme.mix((p * q).clamp(-10, 10))) * (1 + factor_out)
    change = change + (seen * (1 + factor_linear)) @ scheme.field_linear[rows].T + mixed @ scheme.field_out[rows].T
    return change if before is None else change + before(cell)


def means_of(inputs, factor):
    """The means of `factor` cells, one after the other."""
    grid = [-(-size // s) for size, s in zip(inputs.shape[-3:], factor, strict=True)]
    means = inputs.new_zeros(*inputs.shape[:-3], *grid)
    for cell in itertools.product(*map(range, grid)):
        block = (slice(n * s, (n + 1) * s) for n, s in zip(cell, factor, strict=True))
        means[..., *cell] = inputs[..., *block].mean(dim=(-3, -2, -1))
    return means


@torch.no_grad()
def cell_by_cell(local, inputs, conditions, rows, periodic):
    """What the operator's drawing says, for one cell after the other."""
    change = torch.zeros(len(inputs), *inputs.shape[2:], dtype=torch.float64)
    before, of_scales = None, []
    for number in reversed(range(len(local.schemes))):
        scheme, factor = local.schemes[number], local.ladder.factors[number]
        told, means = scheme.modulate(F.gelu(scheme.expand(conditions))), means_of(inputs, factor)
        known = functools.cache(
            functools.partial(change_of, scheme, local.ladder.halo, means, told, rows, periodic=periodic, before=before)
        )
        finer = local.ladder.factors[number - 1] if local.ladder.cascade and number else (1, 1, 1)
        at_finer = functools.cache(functools.partial(interpolated, known, factor, finer))
        if local.ladder.cascade:
            before, of_scales = at_finer, [at_finer]
        else:
            of_scales.append(at_finer)
    for cell in itertools.product(*map(range, inputs.shape[3:])):
        change[:, :, *cell] = sum(at_cell(cell) for at_cell in of_scales)
    return change


@torch.no_grad()
def layer_by_layer(local, inputs, conditions, rows, periodic):
    """What the drawing of a network says, on grids that go on far beyond the domain."""
    found, factor, first = None, None, None
    for number in reversed(range(len(local.schemes))):
        stage, coarser, from_cell = local.schemes[number], factor, first
        factor = local.ladder.factors[number]
        means = means_of(inputs, factor)
        far = [(6 + 3 * number) * min(reach, 1) for reach in local.ladder.halo]
        for axis, (wraps, reach) in enumerate(zip(periodic, far, strict=True), start=3):
            at = torch.tensor(
                [near(at, 0, means.shape[axis], wraps) for at in range(-reach, means.shape[axis] + reach)]
            )
            means = means.index_select(axis, at)
        first = [-reach for reach in far]

        told = stage.modulate(F.gelu(stage.expand(conditions)))[..., None, None, None]
        told, of_linear = told[:, : 2 * stage.channels * (1 + len(stage.mixes))], told[:, -1:]
        told = told.unflatten(1, (-1, stage.channels))
        weight = stage.field_weight[rows].permute(3, 2, 0, 1).flatten(1, 2) / len(rows) ** 0.5
        seen, from_mean = means.flatten(1, 2), first
        values, first = in_windows(seen, weight, local.ladder.halo, first)
        if found is not None:
            grid = itertools.product(*(range(at, at + size) for at, size in zip(first, values.shape[2:], strict=True)))
            known = functools.partial(known_at, found, from_cell)
            before = torch.stack([interpolated(known, coarser, factor, cell) for cell in grid], dim=-1)
            values = values + torch.einsum("oc, bcn -> bon", stage.bring, before).view_as(values)
        values = values * (1 + told[:, 0]) + told[:, 1]
        for layer in range(len(stage.mixes)):
            size = 1 + torch.einsum("bczyx, bczyx -> bzyx", values, values) / stage.channels
            both, beyond = in_windows(values / size.sqrt()[:, None], stage.factors[layer], stage.step, first)
            p, q = both.split(stage.channels, dim=1)
            products = p * (q * (1 + told[:, 2 + 2 * layer]) + 1 + told[:, 3 + 2 * layer])
            inside = [slice(b - a, b - a + size) for a, b, size in zip(first, beyond, p.shape[2:], strict=True)]
            values = values[:, :, *inside] + torch.einsum("oc, bczyx -> bozyx", stage.mixes[layer], products)
            first = beyond
        found = values
    changes, first = in_windows(found, stage.field_out[rows], stage.step, first)
    stencils = torch.zeros(len(rows), 2, len(rows), math.prod(2 * reach + 1 for reach in local.ladder.halo)).double()
    for field, row in enumerate(rows):
        stencils[field, :, field] = stage.field_stencil[row].T
    linear, beyond = in_windows(seen, stencils.flatten(1, 2), local.ladder.halo, from_mean)
    across, _ = in_windows(seen, weight, local.ladder.halo, from_mean)
    linear = linear + torch.einsum("gc, bczyx -> bgzyx", stage.field_linear[rows], across)
    inside = [slice(b - a, b - a + size) for a, b, size in zip(beyond, first, changes.shape[2:], strict=True)]
    changes = changes + linear[:, :, *inside] * (1 + of_linear)
    grid = itertools.product(*map(range, inputs.shape[3:]))
    cells = [interpolated(functools.partial(known_at, changes, first), factor, (1, 1, 1), cell) for cell in grid]
    return torch.stack(cells, dim=-1).view(len(inputs), len(rows), *inputs.shape[3:])


def in_windows(values, weight, halo, first):
    """Weighted sums over the windows that lie inside, and the cell of the first of them."""
    size = [size - 2 * reach for size, reach in zip(values.shape[2:], halo, strict=True)]
    total = 0
    for w, step in enumerate(itertools.product(*(range(2 * reach + 1) for reach in halo))):
        part = (slice(first, first + length) for first, length in zip(step, size, strict=True))
        total = total + torch.einsum("oi, bizyx -> bozyx", weight[:, :, w], values[:, :, *part])
    return total, [at + reach for at, reach in zip(first, halo, strict=True)]


def known_at(values, first, cell):
    at = [along - start for along, start in zip(cell, first, strict=True)]
    assert min(at) >= 0
    return values[:, :, *at]


def interpolated(known, factor, finer, cell):
    """What is known of means of ``factor`` cells, at one of ``finer`` cells."""
    place = [(at + 0.5) * t / s - 0.5 for at, s, t in zip(cell, factor, finer, strict=True)]
    total = 0
    for corner in itertools.product((0, 1), repeat=3):
        at = tuple(math.floor(along) + step for along, step in zip(place, corner, strict=True))
        weight = math.prod(1 - abs(along - n) for along, n in zip(place, at, strict=True))
        if weight > 0:
            total = total + weight * known(cell=at)
    return total
