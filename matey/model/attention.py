"""Attention within segments of a packed token list: the one primitive of all schemes, and its backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd import Function

from matey.config.schema import BACKENDS
from matey.tokens.segments import Segmentation

MOST_SEGMENTS = 65_535
"""Most segments of one call: segments are an axis of the kernel's launch grid, and CUDA and HIP allow no more along it."""

MOST_PADDING = 2
"""Largest ratio of a call's log-sum-exp length to its number of queries: ROCm pads every segment to the longest one."""

Run = tuple[int, int, int]
Kernel = Callable[..., Any]


def segment_attention(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation, backend: str = "auto") -> Tensor:
    """Attend from the queries to the keys of each segment.

    Args:
        q: queries ``(m, h, d)``.
        k: keys ``(n, h, d)``.
        v: values ``(n, h, d)``.
        segmentation: the segments of the ``m`` queries and ``n`` keys.
        backend: name of the function that attends in packed order: one of those below, or one from another package.

    Returns:
        The attended values ``(m, h, d)``, in the order of the queries.

    Raises:
        ValueError: the backend cannot serve this device, precision or installation.
    """
    if segmentation.queries is not None:
        q = q[segmentation.queries]
    if segmentation.keys is not None:
        k, v = k[segmentation.keys], v[segmentation.keys]
    packed = BACKENDS[backend](q, k, v, segmentation)
    return packed if segmentation.inverse is None else packed[segmentation.inverse]


@cache
def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Return the fastest backend for a device and a precision; flash attention needs half precision and a GPU that has it."""
    if device != "cuda" or dtype not in (torch.float16, torch.bfloat16) or not has_flash():
        return "grouped"
    if torch.version.hip is not None and find_spec("flash_attn"):
        return "flash_attn"
    if torch.backends.cuda.is_flash_attention_available():
        return "varlen"
    return "flash_attn" if find_spec("flash_attn") else "grouped"


def has_flash() -> bool:
    """Return whether this process's GPU can run flash attention: NVIDIA's can from Ampere on, and AMD's report more."""
    return torch.cuda.get_device_capability() >= (8, 0)


def auto(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
    """Call the backend that `choose_backend` names; inputs and result are packed."""
    return BACKENDS[choose_backend(q.device.type, q.dtype)](q, k, v, segmentation)


def grouped(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
    """Call scaled-dot-product attention once per run of equal segments; inputs and result are packed.

    Segments are not padded to save calls: lengths repeat so often that there are few calls.
    """
    parts = []
    runs = [run for call in calls_of(segmentation.runs) for run in call]
    rows_of = [[run[0] * run[which] for run in runs] for which in (1, 2, 2)]
    # One split per tensor, no slices: the gradient of each slice would be as long as the whole list.
    for run, *of_run in zip(runs, *map(_split, (q, k, v), rows_of), strict=True):
        batched = (rearrange(rows, "(s l) h d -> s h l d", s=run[0]) for rows in of_run)
        parts.append(rearrange(F.scaled_dot_product_attention(*batched), "s h l d -> (s l) h d"))
    return parts[0] if len(parts) == 1 else torch.cat([q[:0], *parts])


def _split(rows: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    return [rows] if len(lengths) == 1 else rows.split(lengths)


def varlen(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
    """Call PyTorch's variable-length flash attention for all segments together; inputs and result are packed."""
    return _flash(q, k, v, segmentation, "varlen")


def flash_attn(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
    """Call the package flash-attn for all segments together; inputs and result are packed."""
    return _flash(q, k, v, segmentation, "flash_attn")


def _flash(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation, backend: str) -> Tensor:
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"The attention backend {backend!r} needs a GPU and bfloat16 or float16, got {q.dtype} on {q.device.type}; "
            "set model.attention to auto or grouped."
        )
    if len(segmentation.runs) <= 1:  # equal lengths need no offsets
        return grouped(q, k, v, segmentation)
    return in_calls(_kernel(backend), q, k, v, segmentation, MOST_PADDING if torch.version.hip else math.inf)


def in_calls(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation, most_padding: float = math.inf
) -> Tensor:
    """Call variable-length attention as often as its limits make necessary; inputs and result are packed.

    Args:
        kernel: function of queries, keys, values, the segments' query and key offsets, and their largest query and key lengths.
        q: queries ``(m, h, d)``.
        k: keys ``(n, h, d)``.
        v: values ``(n, h, d)``.
        segmentation: the segments.
        most_padding: limit of `calls_of`.
    """
    calls = calls_of(segmentation.runs, most_padding)
    rows_of = [[sum(run[0] * run[which] for run in call) for call in calls] for which in (1, 2, 2)]
    parts, first = [], 0
    for call, *of_call in zip(calls, *map(_split, (q, k, v), rows_of), strict=True):
        stop = first + sum(run[0] for run in call)
        offsets = segmentation.offsets
        if len(calls) > 1:
            offsets = offsets[:, first : stop + 1] - offsets[:, first : first + 1]
        longest = (max(run[which] for run in call) for which in (1, 2))
        parts.append(kernel(*of_call, *offsets, *longest))
        first = stop
    return parts[0] if len(parts) == 1 else torch.cat([q[:0], *parts])


def calls_of(runs: Sequence[Run], most_padding: float = 0) -> list[list[Run]]:
    """Deal runs of equal segments out to calls of at most `MOST_SEGMENTS` segments each.

    Args:
        runs: runs as in `Segmentation`.
        most_padding: largest factor by which padding to the longest segment may increase a call's queries; with 0 each run is a
            call of its own.
    """
    calls: list[list[Run]] = []
    segments = num_queries = longest = 0
    for count, queries, keys in runs:
        while count:
            longest = max(longest, queries)
            fits = (segments + count) * longest <= most_padding * (num_queries + count * queries)
            if not calls or segments == MOST_SEGMENTS or not fits:
                calls.append([])
                segments, num_queries, longest = 0, 0, queries
            taken = min(count, MOST_SEGMENTS - segments)
            calls[-1].append((taken, queries, keys))
            segments, num_queries, count = segments + taken, num_queries + taken * queries, count - taken
    return calls


def _kernel(backend: str) -> Kernel:
    """Import and return the function of variable-length flash attention; both functions take the same arguments."""
    if backend == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn
    if find_spec("flash_attn"):
        from flash_attn import flash_attn_varlen_func

        return flash_attn_varlen_func
    raise ValueError("The package flash-attn is not installed; install it or set model.attention to auto.")


def turned(qkv: Tensor, rotation: Tensor) -> Tensor:
    """Turn queries and keys; values stay as they are.

    Args:
        qkv: queries, keys and values ``(n, 3, h, d)``.
        rotation: cosines and sines ``(n, 2, d / 2)``, see `rotation_of`; channel ``c`` makes a pair with ``c + d / 2``.

    Returns:
        ``(n, 3, h, d)``.
    """
    found: Tensor = _Turned.apply(qkv, rotation[:, 0, None, None], rotation[:, 1, None, None])
    return found


class _Turned(Function):
    """One copy and four passes over queries and keys. Attention keeps the copy, so that ``qkv`` need not be kept beside it."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.cos, ctx.sin = cos, sin
        result = qkv.clone()
        (first, second), (to_first, to_second) = _pairs(qkv, cos.shape[-1]), _pairs(result, cos.shape[-1])
        to_first.mul_(cos).addcmul_(second, sin, value=-1)
        to_second.mul_(cos).addcmul_(first, sin)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        # Differentiable again: `once_differentiable` would let `torch.autograd.grad` leave out a part of a second derivative.
        return _Turned.apply(gradient, ctx.cos, -ctx.sin), None, None


def _pairs(qkv: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """Return views of both channels of each pair of queries and keys."""
    return qkv[:, :2, :, :num_pairs], qkv[:, :2, :, num_pairs : 2 * num_pairs]
