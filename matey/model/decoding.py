"""Decodes tokens to the values in their patches: the mirror of the stem, with a view of the last frame around each cell.

A token's width limits what it carries of its patch, so a decoder that saw only tokens could not even repeat a rough field, let
alone take its differences across patch borders. The decoder therefore also sees the last frame, in a small window around the
cells that it writes; the token decides how the window is used. The window reaches into the neighbouring patches, as the
stencil of a solver does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.blending import ramp
from matey.model.configuration import MateyConfig
from matey.model.given import Rows, chosen
from matey.model.module_list import ModuleList
from matey.model.one_tensor import packed
from matey.model.windows import Windows
from matey.tokens.patches import Patch, Places, factor_stages


class PatchDecoder(nn.Module):
    """Decode tokens of one level to the values of a single frame in their patches.

    Args:
        patch: size ``t z y x`` of the level's patches.
        num_fields: rows of the vocabulary.
        width: embedding width of a token.
        halo: number of cells by which the window on the last frame reaches beyond its block, on each side.
        overlap: number of cells by which a decoded block reaches into its neighbours, on each side; at most half a block.
    """

    def __init__(self, patch: Patch, num_fields: int, width: int, halo: int, overlap: int) -> None:
        super().__init__()
        shape = BlockShape.from_patch(patch, halo, overlap)
        self.patch, self.cells, self.halo, self.margin = (1, *patch[1:]), shape.cells, shape.halo, shape.margin
        _, *merges = factor_stages(self.patch)
        self.splits = merges[::-1] or [(1, 1, 1, 1)]
        window = math.prod(size + 2 * reach for size, reach in zip(self.cells[1:], self.halo, strict=True))
        block = math.prod(size + 2 * reach for size, reach in zip(self.cells[1:], self.margin, strict=True))
        hidden = width // 2
        widths = [width] + [width // 4] * (len(self.splits) - 1) + [hidden]
        self.stages = ModuleList(
            [
                nn.Linear(w_in, math.prod(split) * w_out)
                for split, (w_in, w_out) in zip(self.splits, pairwise(widths), strict=True)
            ]
        )
        self.window_weight = nn.Parameter(torch.empty(num_fields, window, hidden))
        # Zero, so that an untrained model predicts no change: persistence.
        self.field_weight = nn.Parameter(torch.zeros(num_fields, hidden, block))
        self.field_bias = nn.Parameter(torch.zeros(num_fields, block))

    def windows(self, frames: Sequence[Tensor], starts: Sequence[Sequence[int]], blocks: Sequence[Places]) -> Windows:
        """Return the decoder's windows around some blocks, in boxes of the normalised last frames, see `Windows`."""
        return Windows(frames, starts, blocks, self.cells[1:], self.halo)

    def forward(self, tokens: Tensor, windows: Sequence[Windows], rows: Sequence[Rows]) -> Tensor:
        """Decode the tokens of every batch in one call; the result is one tensor, see `matey.model.one_tensor`.

        Args:
            tokens: ``(m, e)``, the tokens to decode, batch after batch.
            windows: windows around the ``c`` blocks of the tokens of each batch, see `windows`; ``c`` may be 0.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            The blocks of the batches ``(f, z, y, x, c)``, with their margins and weighted by `ramp`, see `shapes`.
        """
        grid = [1, 1, 1, 1]
        for number, (stage, split) in enumerate(zip(self.stages, self.splits, strict=True)):
            tokens = _split(stage(tokens if number == 0 else F.gelu(tokens)), grid, split)
            grid = [g * s for g, s in zip(grid, split, strict=True)]
        weight_of_cell = _ramp_on(self.cells[1:], self.margin, self.field_weight.device, self.field_weight.dtype)
        field_weight, field_bias = (p * weight_of_cell.flatten() for p in (self.field_weight, self.field_bias))
        blocks = tokens.split([len(window) for window in windows])
        decoded = []
        for features, window, row in zip(blocks, windows, rows, strict=True):
            seen = window.weighted_sums(chosen(self.window_weight, row.inputs) / math.sqrt(len(row.predicted)))
            weight = rearrange(chosen(field_weight, row.predicted), "f e w -> (f w) e")
            decoded.append(
                torch.addmm(chosen(field_bias, row.predicted).flatten()[:, None], weight, F.gelu(features + seen).T)
            )
        return packed(decoded)

    def shapes(self, windows: Sequence[Windows], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's blocks, ``(f, z, y, x, c)``."""
        block = [size + 2 * reach for size, reach in zip(self.cells[1:], self.margin, strict=True)]
        return [(len(row.predicted), *block, len(window)) for window, row in zip(windows, rows, strict=True)]


@dataclass(frozen=True)
class BlockShape:
    """Shape of the blocks of cells into which patches of a level are decoded.

    Attributes:
        cells: size ``1 z y x`` of a block without its margins.
        halo: cells ``z, y, x`` by which the window on the last frame reaches beyond a block, on each side.
        margin: cells ``z, y, x`` by which a block reaches into its neighbours, on each side.
    """

    cells: Patch
    halo: tuple[int, ...]
    margin: tuple[int, ...]

    @classmethod
    def from_patch(cls, patch: Patch, halo: int, overlap: int) -> BlockShape:
        """Return the shape for patches of a size, see `PatchDecoder`."""
        one, z, y, x = factor_stages((1, *patch[1:]))[0]
        # Along an axis where patches are one cell wide, such as z of plane data, there are no neighbours to look at.
        beyond = tuple(halo if size > 1 else 0 for size in patch[1:])
        return cls((one, z, y, x), beyond, tuple(min(overlap, size // 2) for size in (z, y, x)))


def block_shapes(config: MateyConfig) -> list[BlockShape]:
    """Return the shape of the blocks into which patches of each level are decoded."""
    return [BlockShape.from_patch(patch, config.halo, config.overlap) for patch in config.patches]


def tile_of(blocks: Iterable[BlockShape]) -> Patch:
    """Return the smallest tile, of one frame, that the blocks of every level divide."""
    z, y, x = (math.lcm(*along) for along in zip(*(of_level.cells[1:] for of_level in blocks), strict=True))
    return 1, z, y, x


def reach_of(blocks: Iterable[BlockShape]) -> list[int]:
    """Return the largest number of cells ``z, y, x`` by which blocks of any level reach into their neighbours."""
    return [max(along) for along in zip(*(of_level.margin for of_level in blocks), strict=True)]


@cache
def _ramp_on(cells: tuple[int, ...], margin: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return `ramp` on the device of the weights, copied there once, since a copy makes the host wait."""
    with torch.inference_mode(False):  # it may be used in training later
        return ramp(cells, margin).to(device, dtype)


def _split(cells: Tensor, grid: Sequence[int], factor: Sequence[int]) -> Tensor:
    (T, Z, Y, X), (t, z, y, x) = grid, factor
    pattern = "(m T Z Y X) (t z y x e) -> (m T t Z z Y y X x) e"
    return rearrange(cells, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x)
