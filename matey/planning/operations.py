"""Counts the operations of the network's matrix products on a model without storage; `workload` counts attention's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from matey.model.blending import directions
from matey.model.configuration import MateyConfig
from matey.model.decoding import PatchDecoder, block_shapes
from matey.model.embedding import PatchEmbedding, PositionEmbedding
from matey.model.ladder import Ladder
from matey.model.matey import MateyModel
from matey.model.slabs import is_large, kept_by_scheme, kept_by_stage, slab_of
from matey.model.stencil import NUM_INPUTS

Costs = tuple[int, int, int]
"""Costs of a token: per input field (given fields included), per predicted field, and the rest."""


@dataclass(frozen=True)
class LocalCosts:
    """Costs of the local operator, see `matey.model.local`.

    Attributes:
        ladder: scales of its schemes.
        channels: products per cell of each scheme, or features of each stage of a network.
    """

    ladder: Ladder
    channels: tuple[int, ...]

    def operations(self, num_inputs: int, num_fields: int, box: Sequence[int]) -> int:
        """Return the operations of a forward pass on a box, for numbers of input fields and predicted fields.

        They are products on windows, layers or mix and output, and the interpolation of coarse scales axis by axis.
        """
        ladder, total = self.ladder, 0
        wanted: list[int] = list(box)
        fine: tuple[int, ...] = (1, 1, 1)
        for number, (predicted, factor) in enumerate(zip(self._predicted(box), ladder.factors, strict=True)):
            of_scheme = self._of_stage if ladder.layers else self._of_scheme
            total += of_scheme(number, predicted, num_inputs, num_fields)
            sides, brought = list(predicted), self._finds(number, num_fields)
            for axis, (coarse, s) in enumerate(zip(factor, fine, strict=True)):
                means, sides[axis] = sides[axis], wanted[axis]
                total += means * brought * math.prod(sides) * (coarse > s)
            if ladder.cascade:
                wanted, fine = _sizes(ladder.told(number, [slice(0, size) for size in predicted])), factor
        return 2 * total

    def sees(self, num_inputs: int, box: Sequence[int]) -> int:
        """Return the number of values that all schemes read to predict a box ``z, y, x`` of a sample, halos included."""
        ladder = self.ladder
        return sum(
            NUM_INPUTS * num_inputs * math.prod(_sizes(ladder.seen(number, [slice(0, size) for size in predicted])))
            for number, predicted in enumerate(self._predicted(box))
        )

    def keeps(self, num_inputs: int, num_fields: int, box: Sequence[int]) -> int:
        """Return the number of values kept for the backward pass, for a box ``z, y, x`` of a sample's cells.

        These are the inputs of the windows and the values in them; products and their mix are computed again, but those of
        a network are kept. On a large grid (see `is_large`), a scheme's inputs do not count, because they exist anyway.
        """
        kept = 0
        for number, predicted in enumerate(self._predicted(box)):
            cells, told = math.prod(predicted), self._told(number, num_fields)
            of_cell = self._kept(number, num_inputs, num_fields)
            if is_large(predicted, of_cell):
                # With their gradients; a scheme keeps a copy of its inputs beside the values that it is told.
                kept += 2 * cells * (told + NUM_INPUTS * num_inputs * (told > 0 and not self.ladder.layers))
            else:
                kept += cells * of_cell
        return kept

    def makes(self, num_inputs: int, num_fields: int, box: Sequence[int]) -> int:
        """Return the number of further values held at once in the backward pass: gradients of the values seen in a sample."""
        made = 0
        for number, predicted in enumerate(self._predicted(box)):
            cells, kept = math.prod(predicted), self._kept(number, num_inputs, num_fields)
            seen = 2 * self.channels[number] + num_fields
            if is_large(predicted, kept):  # computed in slabs, whose windows are made again
                axis, layers = slab_of(predicted, kept)
                cells, seen = cells // predicted[axis] * layers, seen + kept
            made = max(made, seen * cells)
        return made

    def _of_scheme(self, number: int, predicted: Sequence[int], num_inputs: int, num_fields: int) -> int:
        """Return the number of products of a scheme."""
        channels, inputs = self.channels[number], NUM_INPUTS * num_inputs + self._told(number, num_fields)
        window = math.prod(2 * reach + 1 for reach in self.ladder.halo)
        seen = inputs * window * (2 * channels + num_fields)
        return math.prod(predicted) * (seen + channels * (channels + num_fields))

    def _of_stage(self, number: int, predicted: Sequence[int], num_inputs: int, num_fields: int) -> int:
        """Return the products of a network's stage: on its window and the values it is told, in its layers and the output."""
        channels, ladder = self.channels[number], self.ladder
        window, near = (math.prod(2 * reach + 1 for reach in reaches) for reaches in (ladder.halo, ladder.step))
        sides = _sizes(ladder.told(number, [slice(0, size) for size in predicted]))
        inputs = NUM_INPUTS * num_inputs * window + self._told(number, num_fields)
        last = (number == 0) * num_fields
        total = math.prod(sides) * (channels * inputs + last * NUM_INPUTS * num_inputs * window)
        for _ in range(ladder.layers[number]):
            sides = [size - 2 * reach for size, reach in zip(sides, ladder.step, strict=True)]
            total += math.prod(sides) * channels * channels * (2 * near + 1)
        return total + math.prod(predicted) * channels * near * last

    def _kept(self, number: int, num_inputs: int, num_fields: int) -> int:
        """Return the number of values per mean that a scheme keeps for the backward pass on a grid that is not large."""
        channels, inputs = self.channels[number], NUM_INPUTS * num_inputs + self._told(number, num_fields)
        if self.ladder.layers:
            return kept_by_stage(inputs, channels, self.ladder.layers[number])
        return kept_by_scheme(inputs, channels, num_fields)

    def _finds(self, number: int, num_fields: int) -> int:
        """Return the number of values that a scheme computes per mean."""
        return self.channels[number] if self.ladder.layers and number else num_fields

    def _told(self, number: int, num_fields: int) -> int:
        """Return the number of values that a scheme is told per mean."""
        follows = self.ladder.cascade and number + 1 < len(self.ladder.factors)
        return self._finds(number + 1, num_fields) if follows else 0

    def _predicted(self, box: Sequence[int]) -> list[list[int]]:
        """Return the size ``z, y, x`` of each scheme's prediction."""
        return [_sizes(sides) for sides in self.ladder.predicted([slice(0, size) for size in box])]


def _sizes(sides: Sequence[slice]) -> list[int]:
    return [side.stop - side.start for side in sides]


@dataclass(frozen=True)
class Operations:
    """Operations of a forward pass (a multiplication and an addition are two), and parameters.

    Attributes:
        per_token: operations of the blocks per token, without the products of attention.
        outside_per_token: operations of the position embedding per token.
        embed: operations of embedding a token's patch at each level: per input field, per predicted field, and the
            rest.
        decode: operations of decoding a token of the last frame at each level, with the same three parts.
        embed_keeps: number of values that embedding keeps for the backward pass, with the same three parts.
        decode_keeps: number of values that decoding keeps for the backward pass, with the same three parts.
        local: costs of the local operator, if there is one.
        parameters: number of values of each parameter tensor.
    """

    per_token: int
    outside_per_token: int
    embed: tuple[Costs, ...]
    decode: tuple[Costs, ...]
    embed_keeps: tuple[Costs, ...]
    decode_keeps: tuple[Costs, ...]
    local: LocalCosts | None
    parameters: tuple[int, ...]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(self.parameters)


def count_operations(config: MateyConfig) -> Operations:
    """Count the operations of a model with this configuration."""
    with torch.device("meta"):
        model = MateyModel(config)
    local = model.local
    embed, decode = zip(
        *(
            (_of_embedding(embedding), _of_decoder(decoder))
            for embedding, decoder in zip(model.embeddings, model.decoders, strict=True)
        ),
        strict=True,
    )
    position = cast(PositionEmbedding, model.position)
    return Operations(
        per_token=sum(_linear(module) for module in model.blocks.modules() if isinstance(module, nn.Linear)),
        outside_per_token=_linear(position.centre) + _linear(position.volume),
        embed=tuple(operations for operations, _ in embed),
        decode=tuple(operations for operations, _ in decode),
        embed_keeps=tuple(kept for _, kept in embed),
        decode_keeps=tuple(kept for _, kept in decode),
        local=None if local is None else LocalCosts(local.ladder, tuple(scheme.channels for scheme in local.schemes)),
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
    _, window, hidden = decoder.window_weight.shape
    block = decoder.field_weight.shape[2]
    places, operations, kept = 1, 0, 0
    for stage, split in zip(decoder.stages, decoder.splits, strict=True):
        operations += places * _linear(stage)
        places *= math.prod(split)
        kept += 2 * places * stage.out_features // math.prod(split)  # before and after GELU
    of_cell = 2 * places * hidden
    return (of_cell * window, of_cell * block, operations), (places * window, places * block, kept)


@dataclass(frozen=True)
class Kernels:
    """Numbers of tensor operations in a micro-step, without views; on a GPU each takes a minimum time, however small it is.

    Attributes:
        block_forward: number in the forward pass of all blocks.
        block_backward: number in the backward pass of all blocks.
        outside_forward: number in tokenizing, embedding, decoding and the loss.
        outside_backward: number in the backward pass of these.
    """

    block_forward: int
    block_backward: int
    outside_forward: int
    outside_backward: int


def count_kernels(config: MateyConfig, num_attentions: int) -> Kernels:
    """Estimate the number of kernels to within about 25 %, fitted to counts of all schemes and token sets in 2-D and 3-D."""
    cells, told = bool(config.local) * config.local_scales.count(1), config.statistics
    means = bool(config.local) * len(config.local_scales) - cells
    more = bool(config.local) * (sum(config.local_layers) - len(config.local_layers))  # beyond each stage's first
    levels = len(config.patches)
    pieces = sum(1 for shape in block_shapes(config) for _ in directions(shape.margin))
    return Kernels(
        block_forward=config.num_blocks * (8 + 13 * num_attentions) // 2,
        block_backward=config.num_blocks * (8 + 11 * num_attentions),
        outside_forward=200
        + 75 * (num_attentions - 1)
        + 240 * levels
        + 5 * pieces
        + 42 * cells
        + 68 * means
        + 10 * more
        + 15 * told,
        outside_backward=20 + 40 * levels + 4 * pieces + 50 * cells + 60 * means + 20 * more + 8 * told,
    )


def _linear(layer: nn.Linear) -> int:
    return 2 * layer.in_features * layer.out_features
