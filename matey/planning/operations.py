"""Counts the operations of the network's matrix products on a model without storage; `workload` counts attention's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from matey.model.blocks import Giving, Taking
from matey.model.boxes import DENSE, GRAINS_AT_ONCE, features_of, grain_of, grains_around, interpolated_cells
from matey.model.cells import NUM_INPUTS, Reach, sides_of, window_of
from matey.model.configuration import MateyConfig
from matey.model.embedding import PatchDecoder, PatchEmbedding
from matey.model.matey import MateyModel
from matey.tokens.decomposition import Span
from matey.tokens.neighbours import places_around
from matey.tokens.patches import Patch

Costs = tuple[int, int, int]
"""Costs of a token: per input field (given fields included), per predicted field, and the rest."""


@dataclass(frozen=True)
class CellCosts:
    """Costs of the network on the cells of a box of one sample, see `matey.model.cells`.

    Attributes:
        reach: reach of its layers.
        channels: number of features of a cell.
        grain: size of the grains that tokens give features to; None for a network without tokens.
    """

    reach: Reach
    channels: int
    grain: Patch | None

    def operations(self, num_inputs: int, num_fields: int, spans: Sequence[Span]) -> int:
        """Return the operations of a forward pass for numbers of input fields and of predicted fields.

        Args:
            num_inputs: number of input fields.
            num_fields: number of predicted fields.
            spans: the cells along ``z, y, x`` in the box and around it that the layers look at.
        """
        near = math.prod(sides_of(self.reach.step))
        seen = NUM_INPUTS * num_inputs * window_of(self.reach)
        first, *layers = self._results(spans)
        products = self.channels * seen * math.prod(first)
        products += self.channels**2 * near * sum(map(math.prod, layers))
        products += num_fields * (self.channels * near + seen) * self._own(spans)
        return 2 * (products + self._interpolated(spans))

    def keeps(self, num_inputs: int, num_fields: int, spans: Sequence[Span]) -> tuple[int, int]:
        """Return the numbers of values kept for the backward pass in the fields' precision, and in the network's.

        A convolution keeps its padded input and its result, which is scaled, and the nonlinearity before it keeps its input. At
        walls, PyTorch keeps what is padded too.
        """
        step, window = self.reach.step, self.reach.window
        first, *layers = results = self._results(spans)
        own = self._sizes(spans, (0, 0, 0))
        inputs = NUM_INPUTS * num_inputs * (_padded(first, window) + _padded(own, window))
        walls = any(far and not span.wraps and not all(span.inside) for far, span in zip(step, spans, strict=True))
        kept = sum(
            (1 + walls) * math.prod(size) + _padded(after, step)
            for size, after in zip(results, [*layers, own], strict=True)
        )
        kept += sum(map(math.prod, layers))
        fields = num_fields * math.prod(own)
        return inputs + self.channels * math.prod(first) + fields, self.channels * kept

    def _results(self, spans: Sequence[Span]) -> list[list[int]]:
        """Return the size ``z, y, x`` of the result of the window, and of each convolution of the layers."""
        number = 2 * (self.reach.before + self.reach.after)
        return [
            self._sizes(spans, [far * (number + 1 - each) for far in self.reach.step]) for each in range(number + 1)
        ]

    def _sizes(self, spans: Sequence[Span], reach: Sequence[int]) -> list[int]:
        """Return the size ``z, y, x`` of the box with as much of the halo as lies within a reach."""
        left = [span.within(far - to) for span, far, to in zip(spans, self.reach.inputs, reach, strict=True)]
        return [span.cells.stop - span.cells.start for span in left]

    def _own(self, spans: Sequence[Span]) -> int:
        return math.prod(self._sizes(spans, (0, 0, 0)))

    def _interpolated(self, spans: Sequence[Span]) -> int:
        """Return the products of interpolating grains to cells, axis by axis."""
        if self.grain is None:
            return 0
        along = list(zip(features_of(spans, self.reach), self.grain[1:], strict=True))
        sizes, total = [len(grains_around(*each)) for each in along], 0
        for axis, (span, size) in enumerate(along):
            cells, grains = interpolated_cells(span, size), sizes[axis]
            sizes[axis] = cells.stop - cells.start
            at_once = grains if grains * sizes[axis] <= DENSE else min(grains, GRAINS_AT_ONCE + 2)
            total += self.channels * at_once * math.prod(sizes) * (size > 1)
        return total


def _padded(sizes: Sequence[int], reach: Sequence[int]) -> int:
    return math.prod(size + 2 * far for size, far in zip(sizes, reach, strict=True))


@dataclass(frozen=True)
class Operations:
    """Operations of a forward pass (a multiplication and an addition are two), and parameters.

    Attributes:
        per_token: operations of the blocks per token, without the products of attention.
        outside_per_token: operations of the position embedding and of the maps of neighbours per token.
        embed: operations of embedding a token's patch at each level: per input field, per predicted field, and the
            rest.
        last: operations for a token of the last frame at each level, with the same three parts: of decoding it, or of taking
            features from cells and giving them.
        embed_keeps: number of values that embedding keeps for the backward pass, with the same three parts.
        last_keeps: number of values kept for a token of the last frame, with the same three parts.
        cells: costs of the network on the cells, if there is one.
        parameters: number of values of each parameter tensor.
    """

    per_token: int
    outside_per_token: int
    embed: tuple[Costs, ...]
    last: tuple[Costs, ...]
    embed_keeps: tuple[Costs, ...]
    last_keeps: tuple[Costs, ...]
    cells: CellCosts | None
    parameters: tuple[int, ...]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(self.parameters)


def count_operations(config: MateyConfig) -> Operations:
    """Count the operations of a model with this configuration."""
    with torch.device("meta"):
        model = MateyModel(config)
    embed = [_of_embedding(embedding) for embedding in model.embeddings]
    last = [_of_decoder(decoder) for decoder in model.decoders]
    last += [_of_exchange(*each) for each in zip(model.taking, model.giving, strict=True)]
    cells = None
    if model.cells_before is not None:
        grain = grain_of(config.patches) if config.has_tokens else None
        cells = CellCosts(model.cells_before.reach, config.channels, grain)
    outside = [model.position, model.maps_before, model.maps_after]
    return Operations(
        per_token=_linear(model.blocks),
        outside_per_token=sum(map(_linear, outside)),
        embed=tuple(operations for operations, _ in embed),
        last=tuple(operations for operations, _ in last),
        embed_keeps=tuple(kept for _, kept in embed),
        last_keeps=tuple(kept for _, kept in last),
        cells=cells,
        parameters=tuple(parameter.numel() for parameter in model.parameters()),
    )


def _of_embedding(embedding: PatchEmbedding) -> tuple[Costs, Costs]:
    """Return the operations per token, and the number of values kept."""
    _, cells, width = embedding.field_weight.shape
    places = num_cells = math.prod(embedding.patch) // cells
    operations = kept = 0
    for stage, merge in zip(embedding.stages, embedding.merges, strict=True):
        kept += 2 * places * width  # before and after GELU
        places //= math.prod(merge)
        operations += places * _linear(stage)
    return (2 * num_cells * cells * width, 0, operations), (num_cells * cells, 0, kept)


def _of_decoder(decoder: PatchDecoder) -> tuple[Costs, Costs]:
    """Return the operations per token of the last frame, and the number of values kept."""
    _, hidden, cells = decoder.field_weight.shape
    places, operations, kept = 1, 0, 0
    for stage, split in zip(decoder.stages, decoder.splits, strict=True):
        operations += places * _linear(stage)
        places *= math.prod(split)
        kept += 2 * places * stage.out_features // math.prod(split)  # before and after GELU
    return (0, 2 * places * hidden * cells, operations), (0, places * cells, kept)


def _of_exchange(taking: Taking, giving: Giving) -> tuple[Costs, Costs]:
    """Return the operations per token of the last frame, and the number of values kept."""
    places, operations, kept = math.prod(taking.patch), _linear(giving), giving.in_features
    for stage, split in zip(taking.stages, taking.splits, strict=True):
        places //= math.prod(split)
        operations += places * _linear(stage)
        kept += places * stage.in_features
    return (0, 0, operations), (0, 0, kept)


@dataclass(frozen=True)
class Kernels:
    """Numbers of tensor operations in a micro-step, without views; on a GPU each takes a minimum time, however small it is.

    Attributes:
        block_forward: number in the forward pass of all blocks.
        block_backward: number in the backward pass of all blocks.
        outside_forward: number in tokenizing, embedding, the network on the cells or decoding, and the loss.
        outside_backward: number in the backward pass of these.
    """

    block_forward: int
    block_backward: int
    outside_forward: int
    outside_backward: int


def count_kernels(config: MateyConfig, num_attentions: int) -> Kernels:
    """Estimate the number of kernels to within about 25 %, fitted to counts of all schemes and token sets in 2-D and 3-D."""
    cells, layers, mixes = int(config.has_cells), sum(config.layers) * config.has_cells, int(config.mixes_neighbours)
    levels, maps = len(config.patches) * config.has_tokens, 2 * config.maps * mixes
    found = (150 * levels + len(places_around(config.patches)) * (3 + 6 * levels)) * mixes  # neighbours, on the host
    return Kernels(
        block_forward=config.num_blocks * (8 + 13 * num_attentions + 14 * mixes) // 2,
        block_backward=config.num_blocks * (8 + 11 * num_attentions + 8 * mixes),
        outside_forward=300 + 75 * (num_attentions - 1) + 240 * levels + found + 13 * cells + 20 * layers + 8 * maps,
        outside_backward=20 + 40 * levels + 40 * cells + 30 * layers + 8 * maps,
    )


def _linear(module: nn.Module) -> int:
    layers = (each for each in module.modules() if isinstance(each, nn.Linear))
    return sum(2 * layer.in_features * layer.out_features for layer in layers)
