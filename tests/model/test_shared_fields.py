"""A micro-batch that no rank has read whole, beside the same read whole."""

from dataclasses import replace

import pytest
import torch

from matey.model.decoding import block_shapes
from matey.model.ladder import Ladder
from matey.model.prepare import prepare
from matey.model.shared_fields import _in_slabs, prepare_parts
from matey.parallel.sequence import SequenceRanks
from matey.parallel.topology import Topology
from matey.samples import Piece
from matey.tokens.by_brick import sums_by_brick
from matey.tokens.parts import Around, BrickShare
from tests.support.models import VOCABULARY, make_batch, make_config
from tests.support.parts import Group, check_same, parts_of

PLANE, DEEP = ((1, 1, 16, 16), (1, 1, 4, 4)), ((2, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4))


def mixed(dtype):
    """Two systems on grids of their own, of which no patch divides one; several samples."""
    padded = make_batch(num_samples=1, grid=(1, 40, 20), dtype=dtype)
    other = make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, (1, 16, 48), seed=1, dtype=dtype)
    return [replace(padded, periodic=(False, False, True)), replace(other, periodic=(False, True, True))]


def long(dtype, periodic=(False, True, True), frames=2, length=192):
    """A sample so long that what a rank needs around its part is part of it."""
    return [replace(make_batch(num_samples=1, frames=frames, grid=(1, length, 16), dtype=dtype), periodic=periodic)]


def space(dtype):
    return [replace(make_batch(num_samples=1, grid=(32, 8, 8), dtype=dtype), periodic=(True, False, True))]


def told(dtype, constant=False):
    """Fields that are given with the second batch, one of them unknown to the model; its samples have leads of their own."""
    first, batch = mixed(dtype)
    random = torch.Generator().manual_seed(0)
    given = torch.rand(batch.num_samples, 1 if constant else 7, 2, *batch.grid, dtype=dtype, generator=random)
    return [first, replace(batch, given_fields=("wind", "force"), given=given, lead_time=torch.tensor([1.0, 4.0]))]


GIVEN = {"fields": (*VOCABULARY, "force"), "given": ("force",)}
CASES = {
    "uniform": ("uniform", ((1, 1, 4, 4),), mixed, {}),
    "mix": ("mix", PLANE, mixed, {}),
    "mul": ("mul", PLANE, mixed, {}),
    "three levels": ("mul", DEEP, mixed, {}),
    "periodic": ("mix", PLANE, long, {}),
    "periodic, undivided": ("mix", PLANE, lambda dtype: long(dtype, length=200), {"local_scales": (1, 3, 8)}),
    "walls": ("mix", PLANE, lambda dtype: long(dtype, (False, False, False)), {}),
    "one frame": ("mix", PLANE, lambda dtype: long(dtype, frames=1), {"history": 1}),
    "no local operator": ("mul", PLANE, long, {"local": 0}),
    "scales that divide nothing": ("mix", PLANE, long, {"local_scales": (1, 3, 8)}),
    "raw values and changes": ("mix", PLANE, mixed, {"values": "raw", "change": 0.5}),
    "a threshold": ("mix", PLANE, mixed, {"rule": "threshold"}),
    "at random": ("mix", PLANE, mixed, {"criterion": "random"}),
    "given": ("mix", PLANE, told, GIVEN),
    "given, constant": ("mul", PLANE, lambda dtype: told(dtype, constant=True), GIVEN),
    "space": ("mix", ((2, 4, 4, 4), (1, 2, 2, 2)), space, {}),
    "space, mul": ("mul", ((2, 8, 8, 8), (1, 4, 4, 4)), space, {}),
}


@pytest.mark.parametrize("grid", [(16, 10, 8), (16, 8, 10), (13, 10, 7), (1, 10, 8)])
def test_slabs_hold_the_bricks_of_a_box_in_their_order(grid, monkeypatch):
    brick, batch = (2, 4, 4, 4), make_batch(num_samples=1, grid=grid, dtype=torch.float64)
    whole = sums_by_brick(batch.history, brick)
    piece = Piece(0, (0, 0, 0), batch.history[0])
    for at_once in (1, 100, 1000, 2000, 3000, 5000, 10**6):  # values; a layer of bricks has some hundreds
        monkeypatch.setattr("matey.model.shared_fields.AT_ONCE", at_once)
        slabs = [slab for _, slab in _in_slabs(piece, batch.samples, brick)]
        assert torch.equal(torch.cat([sums_by_brick(slab, brick) for slab in slabs]), whole), (at_once, len(slabs))


OF_EIGHT = ("three levels", "periodic, undivided", "scales that divide nothing", "given, constant", "space")
SLOW = ("walls", "raw values and changes", "at random", "given", "space, mul")  # of which others are much alike
QUICK = ("periodic, undivided", "given, constant", "space")


def marks_of(name):
    """The marks of a case on two and three ranks."""
    return () if name in QUICK else pytest.mark.slow if name in SLOW else pytest.mark.whole


@pytest.mark.parametrize(
    ("name", "dtype", "sizes"),
    [
        *(pytest.param(name, torch.float32, (2, 3), marks=marks_of(name)) for name in CASES),
        *(
            pytest.param(name, torch.float32, (8,), marks=pytest.mark.whole if name in OF_EIGHT else pytest.mark.slow)
            for name in CASES
        ),
        pytest.param("space", torch.float64, (2, 3), marks=pytest.mark.whole),
        pytest.param("mul", torch.float64, (2, 3, 8), marks=pytest.mark.slow),
    ],
)
def test_a_rank_sees_to_the_last_bit_what_it_would_of_whole_fields(name, dtype, sizes):
    token_set, patches, make, settings = CASES[name]
    config, batches = make_config(patches, set=token_set, **settings), make(dtype)
    for size in sizes:
        groups = [SequenceRanks(Topology(rank, size, size, 3)) for rank in range(size)]
        found = Group(size).run(
            lambda rank, exchange, groups=groups, size=size: prepare_parts(
                parts_of(batches, BrickShare(patches[0], rank, size)), config, groups[rank], exchange
            )
        )
        for group, ours in zip(groups, found, strict=True):
            whole = prepare(batches, config, group)
            check_same(ours, whole)


def test_only_cells_within_the_halo_leave_a_rank_for_another():
    patches = ((1, 8, 8, 8),)
    config = make_config(patches, set="uniform", local_scales=(1,))
    batch = replace(make_batch(num_samples=1, grid=(32, 16, 16)), periodic=(False, False, False))
    sent = {}

    def work(rank, exchange):
        swap = exchange.swap

        def counted(values, send, receive):
            sent[rank] = list(send)
            return swap(values, send, receive)

        exchange.swap = counted
        ranks = SequenceRanks(Topology(rank, 2, 2, 3))
        return prepare_parts(parts_of([batch], BrickShare(patches[0], rank, 2)), config, ranks, exchange)

    Group(2).run(work)
    depth = max(block_shapes(config)[0].halo[0], Ladder.for_config(config).reach(0)[0])
    values = 2 * len(batch.fields) * depth * 16 * 16  # of the two last frames
    assert depth < 8 and sent == {0: [0, values], 1: [values, 0]}


@pytest.mark.parametrize(
    ("cells", "bricks"), [((70, 90), (4, 2)), ((150, 200), (9, 4)), ((-3, 20), (0, 13)), ((190, 210), (0, 13))]
)
def test_only_what_crosses_the_end_of_a_period_that_bricks_do_not_divide_takes_all(cells, bricks):
    (batch,) = long(torch.float32, length=200)
    first, end = cells
    around = Around.of_cells([(slice(0, 1), [0, first, 0], [1, end, 16])], batch.samples, (1, 1, 16, 16), [1, 1, 1])
    assert (around.start[1], around.size[1]) == bricks and (around.start[2], around.size[2]) == (0, 1)


def test_what_is_read_of_a_sample_is_a_share_of_it():
    batches = [make_batch(num_samples=1, grid=(16, 32, 32))]
    for size in (2, 4, 8):
        parts = [parts_of(batches, BrickShare((1, 8, 8, 8), rank, size)) for rank in range(size)]
        counts = [sum(piece.history.numel() for piece in part[0].pieces) for part in parts]
        assert sum(counts) == batches[0].history.numel() and max(counts) == min(counts)
