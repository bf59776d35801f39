"""Embeds patches of any set of fields as tokens by a hierarchical stem; position, lead time and scales; rotary positions.

The stem is after Touvron et al. 2022 (arXiv:2203.09795): a patch is embedded in stages of non-overlapping cells, so that no
stage sees beyond its patch. Departures: weights of the cells belong to field names, and there are no norms between stages,
since a norm per sub-patch would amplify a flat region's small variations to the size of a front's.

Rotary positions turn queries and keys by the places of their tokens, so that attention sees how far apart these are (Su et al.
2021, arXiv:2104.09864, with channels for each axis as in Heo et al. 2024, arXiv:2403.13298). Departure: places are centres in
the unit domain instead of numbers of patches, since tokens have several sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.configuration import NUM_SCALES, MateyConfig
from matey.model.modules import ModuleList, Rows, WideLinear, chosen, packed, weighted_sums, wide
from matey.model.sequence_group import BlockPlan
from matey.tokens.patches import Patch, factor_stages, long_axes, patch_grid, unpatchify
from matey.tokens.segments import Key, place_key


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

    Each field adds its own scales, by name, see `matey.model.given`.
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


class ParameterEmbedding(nn.Module):
    """Embedding of numbers that distinguish a sample's physics, such as a viscosity or a Mach number, with weights by name.

    An unknown number adds nothing. At first no number adds anything: a model that gets new parameters forecasts as before.
    """

    NUM_FEATURES = 3
    # Limit of natural logarithms: a number below exp(-32) counts as zero.
    LARGEST_LOG = 32.0

    def __init__(self, num_parameters: int, width: int) -> None:
        super().__init__()
        self.parameter_weight = nn.Parameter(torch.empty(num_parameters, self.NUM_FEATURES, width))
        self.contract = WideLinear(width, width)

    def forward(self, values: Tensor) -> Tensor:
        """Map parameters ``(b, p)``, NaN where they are not known, to ``(b, e)``."""
        known = ~values.isnan()
        values = values.where(known, 1)
        log = values.abs().log().clamp(-self.LARGEST_LOG, self.LARGEST_LOG)
        # Whether the number is known, its size with its sign, and its order of magnitude.
        features = torch.stack([torch.ones_like(values), values.asinh(), log], dim=-1) / 2  # (b, p, 3)
        features = features.where(known[..., None], 0).flatten(1)
        return self.contract(F.gelu(weighted_sums(features, wide(self.parameter_weight).flatten(0, 1))))


def _merge(cells: Tensor, grid: Sequence[int], factor: Sequence[int]) -> Tensor:
    (T, Z, Y, X), (t, z, y, x) = grid, factor
    pattern = "(m T t Z z Y y X x) e -> (m T Z Y X) (t z y x e)"
    return rearrange(cells, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x)


def fourier_features(values: Tensor, shortest: float, longest: float, num_wavelengths: int) -> Tensor:
    """Return sines and cosines of values at log-spaced wavelengths (Aurora, arXiv:2405.13063, appendix B).

    Args:
        values: ``(...)``, positions, sizes or times in the unit of the wavelengths.
        shortest: the shortest wavelength; values closer than half of it look alike.
        longest: the longest wavelength; values further apart are told apart only by several wavelengths together.
        num_wavelengths: number of wavelengths.

    Returns:
        ``(..., 2 num_wavelengths)``, computed in float64 or float32 as ``values`` is.
    """
    phase = phases(values, shortest, longest, num_wavelengths)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def phases(values: Tensor, shortest: float, longest: float, num_wavelengths: int) -> Tensor:
    """Return the phases ``(..., num_wavelengths)`` of values ``(...)`` at log-spaced wavelengths, see `fourier_features`."""
    return values[..., None] * _angular(shortest, longest, num_wavelengths, values.device, values.dtype)


@cache
def _angular(shortest: float, longest: float, num_wavelengths: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 2 pi over each wavelength, on the device of the values: copied there once, since a copy makes the host wait."""
    with torch.inference_mode(False):  # the cached tensor may be used in training later
        exponents = torch.linspace(math.log(shortest), math.log(longest), num_wavelengths, dtype=torch.float64)
        return (2 * math.pi / exponents.exp()).to(device, dtype)


def rotation_of(centre: Tensor, config: MateyConfig, dtype: torch.dtype) -> Tensor:
    """Return the cosine and sine of each angle by which a token's queries and keys are turned.

    Args:
        centre: ``(n, 4)``, the centres of tokens along t, z, y, x in the unit domain.
        config: the model's configuration. Axes along which a patch has several cells share out the pairs of channels evenly.
        dtype: type of the result.

    Returns:
        ``(n, 2, d / 2)``, rounded down; pairs that are left over are not turned.
    """
    axes, num_pairs = long_axes(config.patches), config.width // config.num_heads // 2
    of_axis = num_pairs // len(axes) if axes else 0
    angles = [phases(centre[:, axis], PositionEmbedding.SHORTEST, PositionEmbedding.LONGEST, of_axis) for axis in axes]
    left_over = centre.new_zeros(len(centre), num_pairs - of_axis * len(axes))
    angle = torch.cat([*angles, left_over], dim=1)
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)


def rotations_of(rotation: Tensor, keys: Sequence[Key], plan: BlockPlan) -> list[Tensor | None]:
    """Return tokens' rotations for each attention of a block, in its order; None where it is among tokens of one place.

    These are turned alike, which changes no product.
    """
    orders = plan.at_residuals(rotation)[:-1]
    return [None if key is place_key else order for key, order in zip(keys, orders, strict=True)]


class PatchDecoder(nn.Module):
    """Decode tokens of one level to the values of a single frame in their patches.

    Args:
        patch: size ``t z y x`` of the level's patches.
        num_fields: rows of the vocabulary.
        width: embedding width of a token.
    """

    def __init__(self, patch: Patch, num_fields: int, width: int) -> None:
        super().__init__()
        self.patch = (1, *patch[1:])
        self.cells, *merges = factor_stages(self.patch)
        self.splits = merges[::-1] or [(1, 1, 1, 1)]
        hidden = width // 2
        widths = [width] + [width // 4] * (len(self.splits) - 1) + [hidden]
        self.stages = ModuleList(
            [
                nn.Linear(w_in, math.prod(split) * w_out)
                for split, (w_in, w_out) in zip(self.splits, pairwise(widths), strict=True)
            ]
        )
        # Zero, so that an untrained model predicts no change, or the mean of a field.
        self.field_weight = nn.Parameter(torch.zeros(num_fields, hidden, math.prod(self.cells)))
        self.field_bias = nn.Parameter(torch.zeros(num_fields, math.prod(self.cells)))

    def forward(self, tokens: Tensor, counts: Sequence[int], rows: Sequence[Rows]) -> Tensor:
        """Decode the tokens of every batch in one call; the result is one tensor, see `matey.model.modules`.

        Args:
            tokens: ``(m, e)``, the tokens to decode, batch after batch.
            counts: number of tokens of each batch; it may be 0.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            The patches ``(m, f, z, y, x)`` of each batch, see `shapes`.
        """
        grid = [1, 1, 1, 1]
        for number, (stage, split) in enumerate(zip(self.stages, self.splits, strict=True)):
            tokens = _split(stage(tokens if number == 0 else F.gelu(tokens)), grid, split)
            grid = [g * s for g, s in zip(grid, split, strict=True)]
        T, Z, Y, X = grid
        t, z, y, x = self.cells
        decoded = []
        features = F.gelu(tokens).split([count * math.prod(grid) for count in counts])
        for of_batch, row in zip(features, rows, strict=True):
            weight = rearrange(chosen(self.field_weight, row.predicted), "f e w -> e (f w)")
            values = torch.addmm(chosen(self.field_bias, row.predicted).flatten(), of_batch, weight)
            pattern = "(m T Z Y X) (f t z y x) -> m f (T t) (Z z) (Y y) (X x)"
            decoded.append(rearrange(values, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x))
        return packed(decoded)

    def shapes(self, counts: Sequence[int], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's patches, ``(m, f, 1, z, y, x)``."""
        return [(count, len(row.predicted), *self.patch) for count, row in zip(counts, rows, strict=True)]


def placed(levels: Sequence[Tensor], rows: Sequence[Tensor], covered: Sequence[int]) -> Tensor:
    """Put the patches of every level where they belong; values add up where parents keep their tokens.

    Args:
        levels: the patches ``(m, f, 1, z, y, x)`` of each level.
        rows: rows ``(m,)`` of these patches in ``patchify`` of one frame.
        covered: number of samples, and of cells ``z, y, x`` that the coarsest patches cover.

    Returns:
        ``(b, f, z, y, x)``.
    """
    number, *cells = covered
    found = []
    for patches, row in zip(levels, rows, strict=True):
        grid = patch_grid((1, *cells), (1, *patches.shape[-3:]))
        empty = patches.new_zeros(number * math.prod(grid), *patches.shape[1:])
        found.append(unpatchify(empty.index_copy(0, row, patches), grid)[:, 0])
    return sum(found[1:], found[0])


def _split(cells: Tensor, grid: Sequence[int], factor: Sequence[int]) -> Tensor:
    (T, Z, Y, X), (t, z, y, x) = grid, factor
    pattern = "(m T Z Y X) (t z y x e) -> (m T t Z z Y y X x) e"
    return rearrange(cells, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x)
