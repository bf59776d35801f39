"""MateyModel: a packed micro-batch of histories in, the predicted values in this rank's box of the cells out.

Of the two networks, ``matey`` has tokens as the coarse scales of a network on the cells, see `matey.model.blocks`; ``paper``
has tokens alone, which are decoded to the cells of their patches. ``cells`` is ``matey`` without tokens, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as hf_logging

from matey.fields import FieldBatch
from matey.model.blocks import Block, Bound, Giving, NeighbourMap, Norm, SelfAttention, Taking, keep_scale, scheme_keys
from matey.model.boxes import grain_of, reach_of
from matey.model.cells import Cells, CellsAfter, CellsBefore
from matey.model.configuration import MateyConfig, place_of
from matey.model.embedding import (
    ConditionEmbedding,
    LeadTimeEmbedding,
    ParameterEmbedding,
    PatchDecoder,
    PatchEmbedding,
    PositionEmbedding,
    placed,
    rotation_of,
    rotations_of,
)
from matey.model.forecast import Forecasts, forecasts_of
from matey.model.modules import ModuleList, packed, unpacked
from matey.model.prepare import Prepared, micro_batch, prepare, single
from matey.model.sequence_group import SequenceGroup, reordered
from matey.tokens.neighbours import places_around
from matey.tokens.patches import extend, patches_at
from matey.tokens.tokenize import TokenBatch, tokenize


class MateyModel(PreTrainedModel):
    """Transformer over adaptive tokens of many PDE systems.

    Every rank calls every submodule once per forward pass, on zero rows where it has no tokens of a level: ZeRO needs the same
    sequence of calls on all ranks.

    Attributes:
        sequence_group: group that computes attention and sums; `matey.parallel` replaces it for a group of ranks.
        checkpoint_blocks: blocks that keep no activations and are computed again in the backward pass: ``none``,
            ``all`` or ``every_other``.
        offload_activations: whether the inputs that such blocks keep wait in main memory.
        tokens_give: whether tokens change any forecast, see `without_tokens`.
    """

    config_class = MateyConfig
    base_model_prefix = "matey"
    if TYPE_CHECKING:
        config: MateyConfig

    def __init__(self, config: MateyConfig) -> None:
        super().__init__(config)
        width, num_fields, channels = config.width, len(config.fields), config.channels
        patches = config.patches if config.has_tokens else ()
        self.keys = scheme_keys(config.scheme, config.patches)
        self.embeddings = ModuleList([PatchEmbedding(patch, num_fields, width) for patch in patches])
        self.position = PositionEmbedding(width, config.num_wavelengths) if config.has_tokens else nn.Identity()
        self.lead_time = LeadTimeEmbedding(width, config.num_wavelengths, config.longest_lead)
        self.conditions = ConditionEmbedding(num_fields, width) if config.statistics else None
        self.told = ParameterEmbedding(len(config.parameters), width) if config.parameters else None
        self.cells_before = CellsBefore(reach_of(config), num_fields, width, channels) if config.has_cells else None
        exchanged = patches if config.has_cells else ()
        self.taking = ModuleList([Taking(patch, channels, width) for patch in exchanged])
        num_places = len(places_around(config.patches)) if config.mixes_neighbours else 0
        num_maps = config.maps if config.mixes_neighbours else 0
        self.maps_before = ModuleList([NeighbourMap(width, num_places) for _ in range(num_maps)])
        hidden, num_blocks = int(width * config.mlp_ratio), config.num_blocks if config.has_tokens else 0
        self.blocks = ModuleList(
            [Block(width, config.num_heads, hidden, len(self.keys), num_places) for _ in range(num_blocks)]
        )
        self.maps_after = ModuleList([NeighbourMap(width, num_places) for _ in range(num_maps)])
        # A norm would amplify what tokens of flat regions give the cells to the size of a front's.
        self.norm = Bound() if config.has_cells else Norm(width)
        self.giving = ModuleList([Giving(patch, grain_of(exchanged), channels, width) for patch in exchanged])
        self.cells_after = CellsAfter(reach_of(config), num_fields, width, channels) if config.has_cells else None
        decoded = () if config.has_cells else patches
        self.decoders = ModuleList([PatchDecoder(patch, num_fields, width) for patch in decoded])
        self.sequence_group = SequenceGroup(config.attention)
        self.checkpoint_blocks, self.offload_activations = "none", False
        self.tokens_give = config.has_tokens
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Giving):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, NeighbourMap):
            nn.init.trunc_normal_(module.weight, std=(3 * module.in_features) ** -0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, PatchEmbedding):
            nn.init.trunc_normal_(module.field_weight, std=module.field_weight.shape[1] ** -0.5)
            nn.init.zeros_(module.field_bias)
        elif isinstance(module, ConditionEmbedding):
            nn.init.trunc_normal_(module.field_weight, std=module.field_weight.shape[1] ** -0.5)
        elif isinstance(module, ParameterEmbedding):
            nn.init.trunc_normal_(module.parameter_weight, std=module.NUM_FEATURES**-0.5)
            nn.init.zeros_(module.contract.weight)
        elif isinstance(module, SelfAttention):
            if module.near is not None:
                nn.init.trunc_normal_(module.near, std=(3 * len(module.near)) ** -0.5)
        elif isinstance(module, Cells):
            nn.init.trunc_normal_(module.kernels, std=(3 * module.kernels[0, 0, 0].numel()) ** -0.5)
            nn.init.trunc_normal_(module.field_weight, std=(3 * module.field_weight[0, ..., 0].numel()) ** -0.5)
            nn.init.zeros_(module.modulate.weight)
            if isinstance(module, CellsAfter):
                for last in (module.field_out, module.field_bias, module.field_stencil, module.field_mix):
                    nn.init.zeros_(last)
        elif isinstance(module, PatchDecoder):
            nn.init.zeros_(module.field_weight)
            nn.init.zeros_(module.field_bias)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Load a model, see `transformers.PreTrainedModel.from_pretrained`; a name that leads nowhere is refused at once.

        Raises:
            OSError: there is no model.
        """
        if pretrained_model_name_or_path is not None:
            pretrained_model_name_or_path = place_of(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @contextmanager
    def without_tokens(self) -> Iterator[None]:
        """Let tokens change no forecast; afterwards, all is as it was."""
        gave = self.tokens_give
        try:
            self.tokens_give = False
            yield
        finally:
            self.tokens_give = gave

    def __call__(self, batches: FieldBatch | Sequence[FieldBatch] | Prepared) -> Forecasts:
        """Predict each batch's frame at its lead time; the forecasts are in the order of the batches.

        Args:
            batches: a micro-batch on the model's device. If it was prepared for this rank, see `matey.model.prepare`, the host
                does not wait for the device; histories are prepared here, on the device.
        """
        if not isinstance(batches, Prepared):
            batches = prepare(micro_batch(batches), self.config, self.sequence_group.ranks)
        return forecasts_of(batches, super().__call__(batches), self.config.predict, self.sequence_group)

    def forward(self, prepared: Prepared) -> Tensor:
        """Return the predicted values of all batches, see `forecasts_of`, as one tensor, see `matey.model.modules`."""
        conditions = self._conditions(prepared)
        if self.cells_before is None or self.cells_after is None:
            return packed(self._decoded(prepared, self._tokens(prepared, conditions)))
        held, rows, sides = prepared.held, prepared.rows, [each.sides for each in prepared.held]
        of_batches = conditions.split([about.number for about in prepared.samples])
        of_boxes = torch.cat([each[box.cells.sample] for each, box in zip(of_batches, held, strict=True)])
        inputs = [each.inputs for each in held if each.inputs is not None]
        features = self.cells_before.features(self.cells_before(inputs, of_boxes, rows, sides), inputs, sides)
        if self.tokens_give:
            features = self._told(prepared, self._tokens(prepared, conditions, features), features)
        changes = self.cells_after(inputs, features, of_boxes, rows, sides)
        shapes = self.cells_after.shapes(inputs, sides, rows)
        return packed([box.of_box(each) for each, box in zip(unpacked(changes, shapes), held, strict=True)])

    def _tokens(self, prepared: Prepared, conditions: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Return the tokens ``(k, e)`` that this rank needs for the cells of its boxes, after the blocks.

        Args:
            prepared: the micro-batch.
            conditions: ``(b, e)``, see `_conditions`.
            features: features ``(k, c, z, y, x)`` of the cells of each batch; none for a network without.
        """
        group, own = self.sequence_group, prepared.layout
        tokens = group.exchange_tokens(self._embedded(prepared, features), prepared.enter)
        # A lookup's gradient adds up in a fixed order, unlike an index's, and in float32: bfloat16 would lose most tokens.
        of_samples = F.embedding(own.sample, conditions)
        tokens = (tokens + self.position(own.centre, own.extent) + of_samples).to(tokens.dtype)
        for each in self.maps_before:
            tokens = each(tokens, group, prepared.near)
        tokens = self._blocks(prepared, tokens)
        for each in self.maps_after:
            tokens = each(tokens, group, prepared.near)
        return group.exchange_tokens(self.norm(tokens), prepared.leave)

    def _embedded(self, prepared: Prepared, features: Sequence[Tensor]) -> Tensor:
        """Return the tokens in this rank's boxes ``(n, e)``, from the histories and the features of their cells."""
        held, plan, embedded = prepared.held, prepared.tokens, []
        for patch, embedding, of_level in zip(self.config.patches, self.embeddings, plan.rows, strict=True):
            patches = [patches_at(box.history, patch, row) for box, row in zip(held, of_level, strict=True)]
            embedded.append(embedding(patches, prepared.rows))
        tokens = torch.cat(embedded)[plan.order]
        if not features:
            return tokens
        whole = [
            extend(box.of_own(each), box.history.shape[-3:], (False, False, False))
            for each, box in zip(features, held, strict=True)
        ]
        taken = torch.cat([taking(whole, of_level) for taking, of_level in zip(self.taking, plan.taking, strict=True)])
        taken = torch.cat([taken, taken.new_zeros(1, taken.shape[1])])
        return tokens + F.embedding(plan.taken, taken)

    def _told(self, prepared: Prepared, tokens: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features of the cells of each batch with what tokens give them."""
        given = [giving(tokens[at]) for giving, at in zip(self.giving, prepared.tokens.giving, strict=True)]
        grains, grain, found = torch.cat(given), grain_of(self.config.patches), []
        for each, box in zip(features, prepared.held, strict=True):
            assert box.grains is not None, "what was prepared for a network without cells"
            found.append(each + box.grains.to_cells(grains, grain))
        return found

    def _decoded(self, prepared: Prepared, tokens: Tensor) -> list[Tensor]:
        """Return the values ``(k, f, z, y, x)`` that tokens of the last frame are decoded to, in the box of each batch."""
        plan, levels = prepared.tokens, []
        for decoder, at, of_level in zip(self.decoders, plan.giving, plan.taking, strict=True):
            counts = [len(row) for row in of_level]
            values = decoder(tokens[at], counts, prepared.rows)
            levels.append(unpacked(values, decoder.shapes(counts, prepared.rows)))
        found = []
        for number, box in enumerate(prepared.held):
            covered = len(box.base), *box.history.shape[-3:]
            rows = [of_level[number] for of_level in plan.taking]
            values = placed([of_level[number] for of_level in levels], rows, covered)
            z, y, x = box.base.shape[-3:]
            found.append(values[..., :z, :y, :x] if self.tokens_give else torch.zeros_like(box.base))
        return found

    def _blocks(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Return this rank's tokens ``(n, e)`` after the blocks."""
        plan, own = prepared.block_plan, prepared.layout
        samples = plan.at_residuals(own.sample) if self.training and self.config.drop_path else []
        rotations = None
        if self.config.rotary:
            rotations = rotations_of(rotation_of(own.centre, self.config, tokens.dtype), self.keys, plan)
        tokens = reordered(tokens, plan.enter)
        for number, block in enumerate(self.blocks):
            keep = self._keep(number, prepared, samples, tokens.dtype)
            tokens = self._call(number, block, tokens, plan, keep, rotations, prepared.in_blocks)
        return reordered(tokens, plan.leave)

    def _call(self, number: int, block: Block, tokens: Tensor, *inputs: Any) -> Tensor:  # noqa: ANN401
        """Call a block, with activation recomputation (again in the backward pass) where that is asked for."""
        recompute = self.checkpoint_blocks == "all" or (self.checkpoint_blocks == "every_other" and number % 2 == 0)
        if not (recompute and self.training and torch.is_grad_enabled()):
            return block(tokens, self.sequence_group, *inputs)
        # The reentrant form saves its input as an autograd function does, so that it can be sent to main memory. It trains the
        # block's weights only if the input has a gradient, which it lacks if all before it is frozen.
        if self.offload_activations and any(weight.requires_grad for weight in block.parameters()):
            tokens = tokens if tokens.requires_grad else tokens.detach().requires_grad_()
        with save_on_cpu(pin_memory=True) if self.offload_activations else nullcontext():
            sequence_group = self.sequence_group.of_recomputed_blocks()
            return checkpoint(block, tokens, sequence_group, *inputs, use_reentrant=self.offload_activations)

    def _keep(
        self, number: int, prepared: Prepared, samples: Sequence[Tensor], dtype: torch.dtype
    ) -> list[Tensor] | None:
        """Return drop path's factor on each residual of a block, ``(n, 1)``, or None where nothing is dropped.

        ``samples`` are the numbers of the tokens' samples ``(n,)``, in the order of each residual.
        """
        rate = self.config.drop_path * number / max(1, len(self.blocks) - 1)
        if not (self.training and rate):
            return None
        draws = [about.draw for about in prepared.samples if about.draw is not None]
        assert len(draws) == len(prepared.samples), "drop path in training needs the draws of the samples"
        draw = torch.cat(draws)
        residuals = len(self.keys) + 1
        scales = (keep_scale(draw, number * residuals + residual, rate) for residual in range(residuals))
        return [scale[sample, None].to(dtype) for scale, sample in zip(scales, samples, strict=True)]

    @torch.no_grad()
    def predict(self, batch: FieldBatch, token_batch: TokenBatch | None = None) -> Tensor:
        """Return the predicted frame ``(b, f, z, y, x)`` in physical units, on the model's device.

        Args:
            batch: histories and lead times.
            token_batch: the batch's tokens if `tokens_of` has already found them, so that they are found only once.
        """
        batch, was_training = single(batch), self.training
        prepared = prepare([batch.to(self.device)], self.config, self.sequence_group.ranks, token_batch)
        try:
            return self.eval()(prepared)[0].field()
        finally:
            self.train(was_training)

    def count_tokens(self, batch: FieldBatch) -> Tensor:
        """Return how many tokens each sample gets, ``(b,)``."""
        return torch.bincount(self.tokens_of(batch).layout.sample, minlength=batch.num_samples)

    def tokens_of(self, batch: FieldBatch) -> TokenBatch:
        """Return the tokens into which the model cuts a batch, on the model's device."""
        return tokenize([batch.to(self.device)], self.config.patches, self.config.refinement)

    def _conditions(self, prepared: Prepared) -> Tensor:
        """Return the conditions of all tokens of a sample, ``(b, e)`` in float32: lead time, scales and parameters."""
        lead_time = torch.cat([samples.lead_time for samples in prepared.samples]).to(torch.float32)
        conditions = self.lead_time(lead_time)
        if self.conditions is not None:
            conditions = conditions + self.conditions(prepared.scales, prepared.rows)
        if self.told is not None:
            assert prepared.parameters is not None, "what was prepared for a model without parameters"
            conditions = conditions + self.told(prepared.parameters)
        return conditions


# So that `AutoModel.from_pretrained` can load a model too, once this module is imported.
AutoConfig.register(MateyConfig.model_type, MateyConfig, exist_ok=True)
AutoModel.register(MateyConfig, MateyModel, exist_ok=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off Hugging Face's progress bars and its report on weights; we report wrong weights ourselves."""
    was_shown, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if was_shown:
            hf_logging.enable_progress_bar()
