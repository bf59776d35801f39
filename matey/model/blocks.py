"""The layers on the tokens: transformer blocks, and tokens as the coarse scales of the network on the cells.

A block is an attention for each segmentation of the scheme, and an MLP, each of which samples may skip. Around the blocks,
tokens take from cells, mix with their neighbours, and give back:

    features on the cells --> each leaf takes those of its cells --> maps of neighbours --> blocks --> maps of neighbours
                                                                                                           |
    added to the features on the cells <-- interpolated <-- grains, a few for each leaf <------------------'

It is one cycle of a multigrid solver whose coarse grid is the adaptive mesh. A leaf gives back its features in grains of some
four cells a side, whatever its size, which are interpolated linearly from grain to grain, so that leaves join without seams:

      +---------------+---+---+      leaves of 16, 8 and 4 cells, and their grains of 4 cells: 16, 4 and 1
      | .   .   .   . | . | . |
      |               +---+---+
      | .   .   .   . | . | . |
      |               +---+---+
      | .   .   .   . | .   . |
      |               |       |
      | .   .   .   . | .   . |
      +---------------+-------+
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.config.schema import SCHEMES
from matey.model.attention import turned
from matey.model.modules import ModuleList
from matey.model.sequence_group import BlockPlan, Plan, SequenceGroup, reordered
from matey.tokens.criteria import GOLDEN, mixed, shifted_right
from matey.tokens.layout import TokenLayout
from matey.tokens.neighbours import Neighbours
from matey.tokens.patches import Patch, factor_stages, parts_along
from matey.tokens.segments import Key


def scheme_keys(scheme: str, patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Return one key per attention of a block, in order; tokens with equal keys attend to each other.

    Raises:
        ValueError: the scheme has no attention.
    """
    keys: Sequence[Key] = SCHEMES[scheme](patches)
    if not keys:
        raise ValueError(
            f"The attention scheme {scheme!r} returned no key; it needs one for each attention of a block."
        )
    return tuple(keys)


def keys_of(layout: TokenLayout, scheme: str, patches: Sequence[Patch]) -> list[Tensor]:
    """Return for each attention of a block the key ``(n,)`` of every token.

    Raises:
        ValueError: the scheme has no attention, or gives more or fewer keys than there are tokens.
    """
    found = [key(layout) for key in scheme_keys(scheme, patches)]
    for each in found:
        if each.shape != (layout.num_tokens,):
            raise ValueError(
                f"The attention scheme {scheme!r} returned keys of shape {tuple(each.shape)}; it needs one for each token, "
                f"({layout.num_tokens},)."
            )
    return found


Near = tuple[Any, Neighbours]
"""The route by which tokens come to this rank, and the nodes around its tokens."""


class Norm(nn.LayerNorm):
    """LayerNorm; on CPUs in float32, since their gradients of its weights add up the tokens in bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``."""
        if input.device.type != "cpu":
            return super().forward(input)
        wide = torch.promote_types(input.dtype, torch.float32)
        affine = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(input.to(wide), self.normalized_shape, *affine, self.eps).to(input.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention within one segmentation, norm first.

    Queries, keys and values have no bias: a bias of the keys cancels in the softmax, so its gradient is rounding noise that
    Adam would amplify.

    With ``num_places``, values of tokens and their neighbours on the mesh are added, channel by channel (LePE of CSWin,
    arXiv:2107.00652), before a nonlinearity and the last map.
    """

    def __init__(self, width: int, num_heads: int, num_places: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.near = nn.Parameter(torch.empty(num_places, width)) if num_places else None

    def forward(
        self,
        tokens: Tensor,
        sequence_group: SequenceGroup,
        plan: Plan,
        rotation: Tensor | None = None,
        near: Near | None = None,
    ) -> Tensor:
        """Return the values ``(n, e)`` that tokens gathered from their segments, see `Block.forward`."""
        qkv = rearrange(self.qkv(self.norm(tokens)), "n (three h d) -> n three h d", three=3, h=self.num_heads)
        if rotation is not None:
            qkv = turned(qkv, rotation)
        q, k, v = qkv.unbind(1)
        gathered = rearrange(sequence_group.attend(q, k, v, plan), "n h d -> n (h d)")
        if self.near is not None and near is not None:
            route, neighbours = near
            around = neighbours.around(sequence_group.exchange_tokens(v.flatten(1), route))  # (n, s, e)
            gathered = F.gelu(gathered + (around * self.near).sum(dim=1))  # many times as fast as an einsum on CPUs
        return self.out(gathered)


class Mlp(nn.Module):
    """Two-layer perceptron per token, norm first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``."""
        return self.contract(F.gelu(self.expand(self.norm(tokens))))


class Block(nn.Module):
    """One attention per segmentation of the scheme, then one MLP, each a residual."""

    def __init__(self, width: int, num_heads: int, hidden: int, num_attentions: int, num_places: int = 0) -> None:
        super().__init__()
        last = num_attentions - 1
        self.attentions = nn.ModuleList(
            [SelfAttention(width, num_heads, num_places if n == last else 0) for n in range(num_attentions)]
        )
        self.mlp = Mlp(width, hidden)

    def forward(
        self,
        tokens: Tensor,
        sequence_group: SequenceGroup,
        plan: BlockPlan,
        keep: Sequence[Tensor] | None = None,
        rotations: Sequence[Tensor | None] | None = None,
        near: Near | None = None,
    ) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``.

        Args:
            tokens: ``(n, e)``, the tokens of this rank, in the order of the last attention.
            sequence_group: the group that computes attention, together with the other ranks that share the samples.
            plan: the attentions and the orders of the tokens, see `RankGroup.plan_block`.
            keep: drop path's factor ``(n, 1)`` on each residual; None: nothing is dropped.
            rotations: rotary positions of the tokens in each attention, see `matey.model.embedding`; None: there are none.
            near: the nodes around the tokens, whose values are mixed in the last attention, and the route of tokens of other
                ranks; None: they are not mixed.
        """
        steps = zip(self.attentions, plan.attentions, plan.within, strict=True)
        for number, (attention, of_attention, change) in enumerate(steps):
            tokens = reordered(tokens, change)
            rotation = None if rotations is None else rotations[number]
            residual = attention(tokens, sequence_group, of_attention, rotation, near)
            tokens = tokens + (residual if keep is None else residual * keep[number])
        residual = self.mlp(tokens)
        return tokens + (residual if keep is None else residual * keep[-1])


def keep_scale(draw: Tensor, number: int, rate: float) -> Tensor:
    """Return each sample's factor on a residual, ``(b,)``: 0 with probability ``rate``, else ``1 / (1 - rate)``.

    Stochastic depth per sample (Huang et al. 2016, arXiv:1603.09382) without a generator's state: a hash of the sample's draw
    and of the residual's number decides, alike on every rank with tokens of the sample, for any number of ranks, in recomputed
    blocks and after a resume.

    Args:
        draw: ``(b,)`` int64, number of the draw, which tells samples of the training stream apart.
        number: number of the residual in the network.
        rate: probability that a sample skips the residual, below 1.
    """
    kept = uniform_hash(draw * 4096 + number) >= rate
    return kept.to(torch.float32) / (1 - rate)


def uniform_hash(values: Tensor) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each integer."""
    return shifted_right(mixed(values.to(torch.int64) + (GOLDEN - 2**64)), 11).to(torch.float64) / 2**53


class Taking(nn.Module):
    """Map the features of a leaf's cells to what is added to its token, in stages as those of `PatchEmbedding`."""

    def __init__(self, patch: Patch, channels: int, width: int) -> None:
        super().__init__()
        self.patch = (1, *patch[1:])
        self.splits = factor_stages(self.patch)
        widths = [channels] + [width] * len(self.splits)
        self.stages = ModuleList(
            [
                nn.Linear(math.prod(split) * w_in, width, bias=number == 0)
                for number, (split, w_in) in enumerate(zip(self.splits, widths, strict=False))
            ]
        )

    def forward(self, features: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Map features of the leaves in all batches to ``(m, e)``.

        Args:
            features: each batch's features ``(b, c, z, y, x)``, as far as the coarsest patches reach.
            rows: rows ``(m,)`` of each batch's leaves in ``patchify`` of the features.
        """
        (_, pz, py, px), pattern = self.patch, "b c (Z z) (Y y) (X x) -> (b Z Y X) (z y x c)"
        # Channels stay side by side, as they lie in memory, and whole leaves are copied: several times as fast as by value.
        cut = [
            F.embedding(row, rearrange(each, pattern, z=pz, y=py, x=px))
            for each, row in zip(features, rows, strict=True)
        ]
        found = torch.cat(cut).unflatten(1, (pz, py, px, -1))
        for stage, (_, z, y, x) in zip(self.stages, self.splits, strict=True):
            found = stage(rearrange(found, "m (Z z) (Y y) (X x) c -> m Z Y X (z y x c)", z=z, y=y, x=x))
        return found.flatten(0, -2)


class NeighbourMap(nn.Linear):
    """A dense map of a token and its neighbours, norm first, added to the token."""

    def __init__(self, width: int, num_places: int) -> None:
        super().__init__(num_places * width, width)
        self.norm = Norm(width)

    def forward(self, tokens: Tensor, sequence_group: SequenceGroup, near: Near) -> Tensor:  # type: ignore[override]
        """Map ``(n, e)`` to ``(n, e)``."""
        route, neighbours = near
        seen = sequence_group.exchange_tokens(F.gelu(self.norm(tokens)), route)
        return tokens + super().forward(neighbours.around(seen).flatten(1))


class Bound(nn.Module):
    """Bound the root mean square of every token at `LARGEST`; small tokens, as of flat regions, stay nearly as they are."""

    LARGEST = 10.0

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``."""
        return F.rms_norm(tokens, tokens.shape[1:], eps=self.LARGEST**2) * self.LARGEST


class Giving(nn.Linear):
    """Map tokens of one level to the features of the grains of their leaves; zero at first, so that tokens change nothing."""

    def __init__(self, patch: Patch, grain: Patch, channels: int, width: int) -> None:
        super().__init__(width, math.prod(parts_along(patch, grain)) * channels)
        self.channels = channels

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(m, e)`` to the grains ``(m g, c)``, those of a leaf one after the other."""
        return super().forward(tokens).view(-1, self.channels)
