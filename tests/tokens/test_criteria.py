"""What is compared between patches, beside plain loops in NumPy; and what holds for every criterion."""

from itertools import product

import numpy as np
import pytest
import torch

from matey.config.schema import CRITERIA
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import cover
from matey.tokens.refinement import Refinement, refine

COARSE, FINE = (1, 1, 8, 8), (1, 1, 4, 4)
OWN = tuple(CRITERIA.own)
PLANE, SPACE = ((2, 3, 2, 1, 16, 24), COARSE, FINE), ((2, 2, 2, 8, 8, 12), (1, 4, 4, 4), (1, 2, 2, 2))


def in_loops(name, fields, patch):
    """Return the criterion of every patch, cell by cell; a patch may reach beyond the grid."""
    b, t, f, *grid = fields.shape
    counts = [-(-cells // size) for cells, size in zip(grid, patch[1:], strict=True)]
    result = np.zeros((b, *counts))
    for sample, *place in product(range(b), *map(range, counts)):
        box = tuple(slice(p * s, min((p + 1) * s, g)) for p, s, g in zip(place, patch[1:], grid, strict=True))
        cells = fields[sample][(slice(None), slice(None), *box)]  # (t, f, z, y, x)
        of_fields = []
        for field in np.moveaxis(cells, 1, 0):
            if name == "variance":
                of_fields.append(field.var())
            elif name == "last_change":
                of_fields.append(((field[-1] - field[-2]) ** 2).mean())
            else:
                order = {"gradient": 1, "second_difference": 2}[name]
                differences = [np.diff(field, order, axis) / order for axis in (1, 2, 3) if field.shape[axis] > order]
                of_fields.append(sum((d**2).mean() for d in differences))
        result[(sample, *place)] = np.mean(of_fields)
    return result


@pytest.mark.parametrize("name", [name for name in OWN if name != "random"])
@pytest.mark.parametrize(
    ("shape", "patch", "beyond"),
    [((2, 3, 2, 1, 16, 24), COARSE, 0), ((1, 2, 2, 8, 12, 8), (1, 4, 4, 2), 0), ((2, 2, 2, 1, 12, 13), COARSE, 8)],
)
def test_criteria_are_those_of_plain_loops_and_padding_counts_for_nothing(name, shape, patch, beyond):
    fields = torch.randn(shape, dtype=torch.float64)
    expected = in_loops(name, fields.numpy(), patch)
    t, z, y, x = cover((shape[1], *shape[3:]), patch)
    expected = np.pad(expected, ((0, 0), (0, 0), (0, beyond // patch[2]), (0, 0)))
    assert torch.allclose(CRITERIA[name](fields, (t, z, y + beyond, x), patch), torch.from_numpy(expected))


@pytest.mark.parametrize("name", [name for name in OWN if name != "random"])
def test_cells_without_data_count_for_nothing(name):
    fields = torch.randn(2, 3, 2, 1, 12, 13, dtype=torch.float64)
    box = in_loops(name, fields[1:, ..., 4:12, :8].numpy(), (1, 1, 8, 8))
    gaps = torch.zeros(1, 12, 13, dtype=torch.bool)
    gaps[:, :4] = gaps[:, :, 8:] = True
    fields[1] = fields[1].masked_fill(gaps, torch.nan)
    found, full = (CRITERIA[name](each, (3, 1, 12, 16), (1, 1, 12, 16)) for each in (fields, fields[:1]))
    np.testing.assert_allclose(found[1:], box)
    assert torch.equal(found[:1], full)  # a sample with data everywhere


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("rule", "value"), [("threshold", 0.0), ("fraction", 1.0), ("budget", 12 + 3 * 6)])
def test_a_patch_without_data_is_never_split_while_others_can_be(name, rule, value):
    fields = torch.randn(1, 2, 2, 1, 16, 24)
    fields[..., :8, :16] = fields[..., 8:, 16:] = torch.nan
    fields[..., 8:, :8] = 1.0  # a patch that does not vary comes before those without data
    (split,) = refine(fields, (COARSE, FINE), Refinement(rule, value, criterion=name))
    varies = [[[[False, False, True], [name == "random" or rule != "threshold", True, False]]]]
    assert split.tolist() == varies


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("shape", "coarse", "fine"), [PLANE, SPACE])
def test_no_sample_changes_the_criterion_of_another(name, shape, coarse, fine):
    fields = torch.randn(3, *shape[1:])
    covered, order = (shape[1], *shape[3:]), [2, 0, 1]
    for patch in (coarse, fine):
        together = CRITERIA[name](fields, covered, patch)
        assert torch.equal(CRITERIA[name](fields[order], covered, patch), together[order])
        assert torch.equal(CRITERIA[name](fields[1:2], covered, patch), together[1:2])
        assert (together >= 0).all()


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("shape", "coarse", "fine"), [PLANE, SPACE])
def test_by_any_criterion_all_split_is_the_fine_grid_and_none_the_coarse(name, shape, coarse, fine):
    fields, patches = torch.randn(shape), [coarse, fine]
    for share, only in ((1.0, fine), (0.0, coarse)):
        split = refine(fields, patches, Refinement("fraction", share, criterion=name))
        layout = layout_tokens([(shape[0], shape[1], *shape[3:])], [split], patches)
        assert layout.num_tokens == fields[:, :, 0].numel() // np.prod(only)


def test_at_random_every_patch_is_split_alike_often_and_places_are_not_tied():
    fields = torch.randn(400, 1, 1, 1, 32, 32)
    (split,) = refine(fields, [COARSE, FINE], Refinement("fraction", 0.25, criterion="random"))
    share = split.float().mean(dim=0).flatten()
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 400) ** 0.5
    numbers = CRITERIA["random"](fields, (1, 1, 32, 32), COARSE).flatten(1)
    between = torch.corrcoef(numbers.T) - torch.eye(16)
    assert between.abs().max() < 5 / 400**0.5
    rough = CRITERIA["random"](fields.bfloat16(), (1, 1, 32, 32), COARSE)
    assert rough.unique().numel() > 0.99 * rough.numel() and rough.max() < 1
    fine = CRITERIA["random"](fields, (1, 1, 32, 32), FINE).flatten(1)
    assert torch.corrcoef(torch.cat([numbers, fine], dim=1).T)[:16, 16:].abs().max() < 5 / 400**0.5


def test_the_last_bit_of_a_sum_does_not_decide_what_is_drawn():
    fields = torch.randn(8, 2, 2, 1, 32, 32)
    drawn, again = (CRITERIA["random"](f, (2, 1, 32, 32), COARSE) for f in (fields, fields * (1 + 2**-22)))
    assert torch.equal(drawn, again)
