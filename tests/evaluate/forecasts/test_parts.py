"""Forecasts into files by ranks that hold parts of the fields."""

import json
from itertools import combinations

import pytest
import torch

from matey.evaluate.forecasts.series import turns_of
from matey.samples import Samples
from tests.evaluate.forecasts.parts_cases import CASES
from tests.support.parts import share_in
from tests.support.programs import cases_of, start_ranks

QUICK = ("plane .nc", "space .zarr", "space and halos .h5", "whole .nc")


@pytest.mark.parametrize(
    ("num_ranks", "names"),
    [(3, QUICK), pytest.param(3, [name for name in CASES if name not in QUICK], marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_ranks_write_their_parts_into_the_file_of_one_process(num_ranks, names, tmp_path):
    command = ("-m", "tests.evaluate.forecasts.parts_cases", tmp_path, json.dumps(names))
    cases = cases_of(start_ranks(num_ranks, *command, timeout=600))
    assert [name for name, *_ in cases] == [*names]
    for name, off, is_same_after_a_break, largest_share, written in cases:
        assert off < 1e-5 and is_same_after_a_break, (name, off)
        if "halos" not in name:  # which make up most of so small a field
            assert largest_share == 1 if "whole" in name else largest_share < 0.7, (name, largest_share)
        assert sum(written) == pytest.approx(1)
        assert max(written) == 1 if "whole" in name else max(written) < 1.6 / num_ranks, (name, written)


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
