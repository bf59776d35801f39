"""The turns in which ranks write their boxes."""

from itertools import combinations

import pytest
import torch

from matey.evaluate.forecasts.series import turns_of
from matey.samples import Samples
from tests.support.parts import share_in

BRICK = (1, 4, 8, 8)


def boxes_of(ways, number=1, grid=(32, 24, 16)):
    about = Samples("", ("a",), (1, *grid), torch.float32, torch.zeros(number), (False,) * 3)
    return [share_in(BRICK, rank, ways)([about])[0] for rank in range(ways)]


def chunks_of(boxes, layers, axis=0):
    """The chunks that hold cells of some boxes."""
    return {
        (sample, chunk)
        for sample, cells in boxes
        for chunk in range(cells[axis].start // layers, -(-cells[axis].stop // layers))
    }


@pytest.mark.parametrize("layers", [1, 3, 4, 7, 16, 32])
@pytest.mark.parametrize(("ways", "number"), [(2, 1), (3, 1), (5, 2), (8, 1), (64, 1), (7, 3)])
def test_ranks_that_write_at_once_share_no_chunk(layers, ways, number):
    boxes = boxes_of(ways, number)
    turns = turns_of(boxes, layers)
    of_chunks = [chunks_of(own, layers) for own in boxes]
    for one, two in combinations(range(ways), 2):
        assert turns[one] != turns[two] or not of_chunks[one] & of_chunks[two], (one, two, turns)
    sharing = [sum(chunk in own for own in of_chunks) for chunk in set().union(*of_chunks)]
    assert max(turns) + 1 == max(sharing)  # no more turns than ranks that share a chunk
