"""Attention within segments of a packed token list: the one primitive of all schemes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from matey.tokens.segments import Segmentation


def segment_attention(q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
    """Attend among the tokens of each segment.

    Args:
        q: queries ``(n, h, d)``.
        k: keys ``(n, h, d)``.
        v: values ``(n, h, d)``.
        segmentation: of the ``n`` tokens.

    Returns:
        ``(n, h, d)``, in the order of the queries.
    """
    if segmentation.order is not None:
        q, k, v = (x[segmentation.order] for x in (q, k, v))
    parts, start = [], 0
    for count, length in segmentation.runs:
        rows = slice(start, start + count * length)
        batched = (rearrange(x[rows], "(s l) h d -> s h l d", s=count) for x in (q, k, v))
        parts.append(rearrange(F.scaled_dot_product_attention(*batched), "s h l d -> (s l) h d"))
        start += count * length
    packed = parts[0] if len(parts) == 1 else torch.cat([q[:0], *parts])
    return packed if segmentation.inverse is None else packed[segmentation.inverse]
