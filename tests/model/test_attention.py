"""Attention within segments, and rotary positions."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from matey.model import attention
from matey.model.attention import calls_of, choose_backend, in_calls, segment_attention, turned
from matey.model.embedding import rotation_of, rotations_of
from matey.model.prepare import prepare
from matey.tokens.segments import segment
from tests.support.models import make_batch, make_config, make_model

KEYS = {
    "one segment": torch.zeros(12, dtype=torch.long),
    "equal and in place": torch.arange(12) // 4,
    "equal and scattered": torch.arange(12) % 3,
    "ragged": torch.tensor([3, 3, 0, 7, 0, 3, 7, 7, 7, 1, 0, 3]),
    "single tokens": torch.arange(12).flip(0),
}


@pytest.mark.parametrize("name", KEYS)
def test_segments_equal_dense_attention_under_a_mask(name):
    key = KEYS[name]
    q, k, v = (torch.randn(12, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    scores = torch.einsum("nhd,mhd->hnm", q, k) / 8**0.5
    dense = torch.einsum("hnm,mhd->nhd", scores.masked_fill(key[:, None] != key, -torch.inf).softmax(-1), v)
    ours = segment_attention(q, k, v, segment(key))
    assert torch.allclose(ours, dense, atol=1e-12)
    weight = torch.randn_like(dense)
    ours_gradients = torch.autograd.grad((ours * weight).sum(), (q, k, v))
    for got, expected in zip(ours_gradients, torch.autograd.grad((dense * weight).sum(), (q, k, v)), strict=True):
        assert torch.allclose(got, expected, atol=1e-12)


def variable_length(bound):
    """Return a function with the arguments of flash attention of variable lengths, which takes so many segments at most."""

    def kernel(q, k, v, offsets_q, offsets_k, longest_q, longest_k):
        lengths_q, lengths_k = offsets_q.diff().tolist(), offsets_k.diff().tolist()
        assert 0 < len(lengths_q) <= bound and (max(lengths_q), max(lengths_k)) == (longest_q, longest_k)
        parts = zip(*(x.split(n) for x, n in ((q, lengths_q), (k, lengths_k), (v, lengths_k))), strict=True)
        swapped = ([x.transpose(0, 1) for x in part] for part in parts)
        return torch.cat([F.scaled_dot_product_attention(*part).transpose(0, 1) for part in swapped])

    return kernel


@pytest.mark.parametrize("padding", [1, 2, float("inf")])
@pytest.mark.parametrize("bound", [2, 3, 65_535])
@pytest.mark.parametrize("name", KEYS)
def test_segments_beyond_the_bound_of_a_kernel_are_dealt_out_to_calls(name, bound, padding, monkeypatch):
    monkeypatch.setattr(attention, "MOST_SEGMENTS", bound)
    backends = {"grouped": attention.grouped, "calls": partial(in_calls, variable_length(bound), most_padding=padding)}
    monkeypatch.setattr(attention, "BACKENDS", backends)
    q, k, v = (torch.randn(12, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for queries in (slice(0, 12), slice(3, 9)):
        segmentation = segment(KEYS[name], queries)
        found = []
        for backend in backends:
            attended = segment_attention(q[queries], k, v, segmentation, backend)
            found.append([attended, *torch.autograd.grad(attended.square().sum(), (q, k, v))])
        assert all(torch.allclose(ours, expected, atol=1e-12) for ours, expected in zip(*found, strict=True))


def test_calls_pad_no_more_than_they_may_and_are_no_more_than_needed():
    runs = [(100_000, 1, 1), (10, 50, 60), (1, 10_000, 10_000)]
    assert calls_of(runs, float("inf")) == [[(65_535, 1, 1)], [(34_465, 1, 1), *runs[1:]]]
    for call in (calls := calls_of(runs, 2)):
        longest = max(queries for _, queries, _ in call)
        padded = sum(count for count, *_ in call) * longest
        assert padded <= 2 * sum(count * queries for count, queries, _ in call)
    assert len(calls) == 4


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("queries", [slice(0, 5), slice(3, 12), slice(7, 7)])
def test_queries_of_a_slice_attend_to_all_keys_of_their_segments(name, queries):
    key = KEYS[name]
    q, k, v = (torch.randn(12, 2, 8, dtype=torch.float64) for _ in range(3))
    all_queries = segment_attention(q, k, v, segment(key))
    some = segment_attention(q[queries], k, v, segment(key, queries))
    assert torch.allclose(some, all_queries[queries], atol=1e-12)


def test_flash_attention_says_what_it_needs():
    q = torch.randn(4, 2, 8)
    with pytest.raises(ValueError, match="'varlen' needs a GPU and bfloat16 or float16, got torch.float32 on cpu"):
        segment_attention(q, q, q, segment(torch.zeros(4, dtype=torch.long)), "varlen")
    assert choose_backend("cpu", torch.bfloat16) == choose_backend("cuda", torch.float32) == "grouped"


def test_a_gpu_before_ampere_does_not_take_flash_attention_by_itself(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    chosen = {}
    for capability in ((7, 0), (7, 5), (8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        chosen[capability] = choose_backend.__wrapped__("cuda", torch.bfloat16)
    assert chosen[7, 0] == chosen[7, 5] == "grouped" and "grouped" not in (chosen[8, 0], chosen[9, 0])


PATCHES = ((1, 1, 16, 16), (1, 1, 4, 4))
CONFIG = make_config(PATCHES, width=96, num_heads=3)


def scores(queries, keys, centre, config=CONFIG):
    """The product of every query with every key ``(h, n, n)``, once they are turned."""
    qkv = torch.stack([queries, keys, torch.zeros_like(keys)], dim=1)
    q, k, _ = turned(qkv, rotation_of(centre, config, queries.dtype)).unbind(1)
    return torch.einsum("m h d, n h d -> h m n", q, k)


def tokens(number=6, width=32):
    torch.manual_seed(0)
    return torch.randn(2, number, 3, width, dtype=torch.float64), torch.rand(number, 4, dtype=torch.float64)


def test_products_depend_on_distances_alone():
    (queries, keys), centre = tokens()
    here = scores(queries, keys, centre)
    assert torch.allclose(here, scores(queries, keys, centre + torch.tensor([0.3, 0.1, 0.7, -0.2])), atol=1e-12)
    apart = centre.clone()
    apart[0, 3] += 0.1
    assert not torch.allclose(here, scores(queries, keys, apart))


def test_along_an_axis_of_single_cells_nothing_is_turned():
    (queries, keys), centre = tokens()
    elsewhere = centre * torch.tensor([3.0, 5.0, 1.0, 1.0])
    assert scores(queries, keys, centre).equal(scores(queries, keys, elsewhere))
    space = make_config(((1, 4, 4, 4),), width=96)
    assert not scores(queries, keys, centre, space).equal(scores(queries, keys, elsewhere, space))


@pytest.mark.parametrize(
    ("scheme", "turning"), [("vit", [True]), ("svit", [False, True]), ("avit", [False, True, True])]
)
def test_attention_among_tokens_of_one_place_is_not_turned(scheme, turning):
    model, batch = make_model(PATCHES, scheme=scheme), make_batch(dtype=torch.float64)
    prepared = prepare([batch], model.config)
    rotation = rotation_of(prepared.tokens.layout.centre, model.config, torch.float64)
    found = rotations_of(rotation, model.keys, prepared.block_plan)
    assert [each is not None for each in found] == turning
    forecast = model.predict(batch)
    all_turned = [rotation if order is None else rotation[order] for order in prepared.block_plan.orders]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("matey.model.matey.rotations_of", lambda *_: all_turned)
        difference = (model.predict(batch) - forecast).abs().max()
    still = make_model(PATCHES, scheme=scheme, rotary=False)
    still.load_state_dict(model.state_dict())
    assert difference < 1e-9 < 1e-4 < (still.predict(batch) - forecast).abs().max()  # angles are in float32


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_channels_without_a_pair_or_an_axis_stay_as_they_are(width):
    (queries, keys), centre = tokens(width=width)
    qkv = torch.stack([queries, keys, keys], dim=1)
    rotation = rotation_of(centre, make_config(PATCHES, width=3 * width * 4, num_heads=12), qkv.dtype)
    assert rotation.shape == (6, 2, width // 2)
    found = turned(qkv, rotation)
    still = width // 2 % 2 + width % 2 if width > 3 else width  # a pair for each of two axes, or none
    assert (found == qkv).all(dim=(0, 1, 2)).sum() >= still and torch.allclose(found.norm(dim=-1), qkv.norm(dim=-1))


def test_gradients_and_their_gradients_are_those_of_the_turn():
    (queries, keys), centre = tokens(width=6)
    qkv = torch.stack([queries, keys, keys], dim=1).requires_grad_()
    rotation = rotation_of(centre, make_config(PATCHES, width=72, num_heads=12), qkv.dtype)
    assert torch.autograd.gradcheck(lambda values: turned(values, rotation) ** 2, (qkv,))
    assert torch.autograd.gradgradcheck(lambda values: turned(values, rotation) ** 2, (qkv,))
