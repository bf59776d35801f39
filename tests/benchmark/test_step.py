"""Fields that steps are timed on."""

import pytest

from matey.benchmark.step import Case


@pytest.mark.parametrize("grid", [(64, 64), (32, 32, 32)])
def test_all_sharp_spots_lie_where_the_field_is(grid):
    batch = Case(grid=grid, batch=8, fields=1, frames=1).make_batch()
    # The waves stay within 1; a spot adds 3.
    spots = (batch.history[:, 0, 0] > 1.5).flatten(1)
    assert spots.any(dim=1).all()
    if len(grid) == 2:
        assert spots.sum(dim=1).min() > 2 * 7  # a spot has 7 cells or more; some lie on each other, or at an edge
