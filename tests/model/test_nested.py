"""Nested nouns and their tensors."""

import pickle
from dataclasses import dataclass

import torch

from matey.model.nested import packed, tensors_in, with_tensors


@dataclass(frozen=True)
class Inner:
    values: torch.Tensor
    box: tuple[slice, ...]

    def __post_init__(self):
        assert self.values.device.type == "cpu", "made once"


def nouns():
    inner = Inner(torch.arange(7, dtype=torch.int32), (slice(1, 2),))
    return [(inner, torch.tensor([True, False, True])), {"one": torch.tensor(1.5)}, (None, "x"), torch.zeros(0, 3)]


def test_every_tensor_is_found_in_order_and_replaced():
    shapes = [tuple(tensor.shape) for tensor in tensors_in(nouns())]
    assert shapes == [(7,), (3,), (), (0, 3)]
    ((inner, mask), one, rest, none) = with_tensors(nouns(), lambda tensor: tensor.to("meta"))
    assert {each.device.type for each in (inner.values, mask, one["one"], none)} == {"meta"}
    assert inner.box == (slice(1, 2),) and rest == (None, "x")


def test_what_is_packed_travels_as_one_buffer_and_comes_out_as_it_was():
    there = pickle.loads(pickle.dumps(packed(nouns())))
    assert there.buffer.dtype == torch.uint8 and tensors_in(there.outline) == []
    came = there.unpacked()
    for before, after in zip(tensors_in(nouns()), tensors_in(came), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    start = there.buffer.untyped_storage().data_ptr()
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors_in(came)} == {start}
    assert came[0][0].box == (slice(1, 2),)
