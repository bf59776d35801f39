import torch

from matey.model.attention import segment_attention
from matey.tokens.segments import segment


def test_it_gives_the_numbers_of_the_grouped_backend():
    key = torch.tensor([2, 0, 1, 0, 2, 2, 0])
    q, k, v = torch.randn(3, 7, 2, 4, dtype=torch.float64).unbind(0)
    ours, theirs = (segment_attention(q, k, v, segment(key), backend) for backend in ("one_by_one", "grouped"))
    assert torch.allclose(ours, theirs)
