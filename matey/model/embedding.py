"""Embeds patches of any set of fields as tokens by a hierarchical stem, and adds position, lead time and scales.

After the stem of Touvron et al. 2022 (arXiv:2203.09795): a patch is embedded in stages of non-overlapping cells, so that no
stage sees beyond its patch. Departures: weights of the cells belong to field names, and there are no norms between stages,
since a norm per sub-patch would amplify a flat region's small variations to the size of a front's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.given import Rows, WideLinear, chosen, weighted_sums, wide
from matey.model.module_list import ModuleList
from matey.model.scales import NUM_SCALES
from matey.tokens.patches import Patch, factor_stages
from matey.tokens.positions import fourier_features


class PatchEmbedding(nn.Module):
    """Embed the patches of one level; one call takes all batches, so that every rank calls every module once."""

    def __init__(self, patch: Patch, num_fields: int, width: int) -> None:
        super().__init__()
        cells, *merges = factor_stages(patch)
        self.patch, self.cells, self.merges = patch, cells, merges or [(1, 1, 1, 1)]
        stage_width = width // 4
        self.field_weight = nn.Parameter(torch.empty(num_fields, math.prod(cells), stage_width))
        self.field_bias = nn.Parameter(torch.zeros(stage_width))
        widths = [stage_width] * len(self.merges) + [width]
        self.stages = ModuleList(
            [
                nn.Linear(math.prod(merge) * w_in, w_out)
                for merge, (w_in, w_out) in zip(self.merges, pairwise(widths), strict=True)
            ]
        )

    def forward(self, patches: Sequence[Tensor], rows: Sequence[Rows]) -> Tensor:
        """Embed the patches of every batch.

        Args:
            patches: normalised values ``(m, f, t, z, y, x)`` of this level's patches in each batch; ``m`` may be 0.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            ``(sum of m, e)``, the embedded patches, batch after batch.
        """
        t, z, y, x = self.cells
        parts = []
        for values, row in zip(patches, rows, strict=True):
            cells = rearrange(values, "m f (T t) (Z z) (Y y) (X x) -> (m T Z Y X) (f t z y x)", t=t, z=z, y=y, x=x)
            weight = chosen(self.field_weight, row.inputs).flatten(0, 1)  # (f c, e)
            # Divided so that many fields do not outweigh few. Only predicted fields count: one more given field, whose
            # weights are zero at first, changes nothing.
            parts.append(weighted_sums(cells, weight) / math.sqrt(len(row.predicted)))
        embedded = torch.cat(parts) + self.field_bias  # (m T Z Y X, e/4)
        grid = [p // c for p, c in zip(self.patch, self.cells, strict=True)]
        for stage, merge in zip(self.stages, self.merges, strict=True):
            grid = [g // s for g, s in zip(grid, merge, strict=True)]
            embedded = stage(F.gelu(_merge(embedded, grid, merge)))
        return embedded


class PositionEmbedding(nn.Module):
    """Embedding of a token's place and size: Fourier features, then linear maps, after Aurora (arXiv:2405.13063)."""

    # Wavelengths in the unit domain: the shortest resolves neighbouring patches on a grid of 128, the longest never repeats.
    SHORTEST, LONGEST = 1 / 64, 2.0
    # Volumes range over many powers of two, so the features are those of their logarithm to base 2.
    LONGEST_LOG_VOLUME = 64.0

    def __init__(self, width: int, num_wavelengths: int) -> None:
        super().__init__()
        self.num_wavelengths = num_wavelengths
        self.centre = nn.Linear(4 * 2 * num_wavelengths, width)
        self.volume = nn.Linear(2 * num_wavelengths, width, bias=False)

    def forward(self, centre: Tensor, extent: Tensor) -> Tensor:
        """Map centres and extents, both ``(n, 4)`` along t, z, y, x in the unit domain, to ``(n, e)``."""
        at = fourier_features(centre, self.SHORTEST, self.LONGEST, self.num_wavelengths)
        log_volume = extent.log2().sum(dim=1)
        size = fourier_features(log_volume, 1.0, self.LONGEST_LOG_VOLUME, self.num_wavelengths)
        dtype = self.centre.weight.dtype
        return self.centre(rearrange(at, "n p w -> n (p w)").to(dtype)) + self.volume(size.to(dtype))


class LeadTimeEmbedding(nn.Module):
    """Embedding of a sample's lead time: Fourier features, then an MLP."""

    SHORTEST = 2.0  # snapshots: neighbouring lead times are half a wavelength apart

    def __init__(self, width: int, num_wavelengths: int, longest: float) -> None:
        super().__init__()
        self.num_wavelengths, self.longest = num_wavelengths, longest
        self.expand = WideLinear(2 * num_wavelengths, width)
        self.contract = WideLinear(width, width)

    def forward(self, lead_time: Tensor) -> Tensor:
        """Map lead times ``(b,)`` in snapshots to ``(b, e)``."""
        features = fourier_features(lead_time, self.SHORTEST, self.longest, self.num_wavelengths)
        return self.contract(F.gelu(self.expand(features)))


class ConditionEmbedding(nn.Module):
    """Embedding of the scales that the normalisation removes from a sample; physics depends on them, as wave speed on depth.

    Each field adds its own scales, by name, see `matey.model.scales`.
    """

    def __init__(self, num_fields: int, width: int) -> None:
        super().__init__()
        self.field_weight = nn.Parameter(torch.empty(num_fields, NUM_SCALES, width))
        self.contract = WideLinear(width, width)

    def forward(self, scales: Sequence[Tensor], rows: Sequence[Rows]) -> Tensor:
        """Map the scales of the samples of every batch to ``(b, e)``, batch after batch.

        Args:
            scales: ``(b, f, 3)``, the scales of all inputs of each batch.
            rows: the rows of each batch's fields in the vocabulary.
        """
        added = []
        for of_batch, row in zip(scales, rows, strict=True):
            weight = wide(chosen(self.field_weight, row.inputs)).flatten(0, 1)  # (f s, e)
            added.append(weighted_sums(of_batch.flatten(1) / (2 * math.sqrt(len(row.predicted))), weight))
        return self.contract(F.gelu(torch.cat(added)))


def _merge(cells: Tensor, grid: Sequence[int], factor: Sequence[int]) -> Tensor:
    (T, Z, Y, X), (t, z, y, x) = grid, factor
    pattern = "(m T t Z z Y y X x) e -> (m T Z Y X) (t z y x e)"
    return rearrange(cells, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x)
