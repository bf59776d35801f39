"""MateyModel: a packed micro-batch of histories in, the decoded patches of the predicted frames out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from matey.fields import FieldBatch, field_rows
from matey.model.blending import Blocks, blend
from matey.model.blocks import Block, scheme_keys
from matey.model.configuration import MateyConfig
from matey.model.decoding import PatchDecoder
from matey.model.embedding import LeadTimeEmbedding, PatchEmbedding, PositionEmbedding
from matey.model.forecast import Forecast
from matey.model.seam import Seam
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import extend, patchify
from matey.tokens.segments import segment
from matey.tokens.tokenize import TokenBatch, tokenize


class MateyModel(PreTrainedModel):
    """Transformer over adaptive tokens of many PDE systems.

    Every rank calls every submodule once per forward pass, on zero rows where it has no tokens of a level: ZeRO needs the same
    sequence of calls on all ranks.
    """

    config_class = MateyConfig
    base_model_prefix = "matey"

    def __init__(self, config: MateyConfig) -> None:
        super().__init__(config)
        width, num_fields = config.width, len(config.fields)
        self.keys = scheme_keys(config.scheme, config.patches)
        self.embeddings = nn.ModuleList([PatchEmbedding(patch, num_fields, width) for patch in config.patches])
        self.position = PositionEmbedding(width, config.num_wavelengths)
        self.lead_time = LeadTimeEmbedding(width, config.num_wavelengths, config.longest_lead)
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            [Block(width, config.num_heads, hidden, len(self.keys)) for _ in range(config.num_blocks)]
        )
        self.norm = nn.LayerNorm(width)
        self.decoders = nn.ModuleList(
            [PatchDecoder(patch, num_fields, width, config.halo, config.overlap) for patch in config.patches]
        )
        self.seam = Seam(config.attention)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, PatchEmbedding):
            nn.init.trunc_normal_(module.field_weight, std=module.field_weight.shape[1] ** -0.5)
            nn.init.zeros_(module.field_bias)
        elif isinstance(module, PatchDecoder):
            nn.init.trunc_normal_(module.window_weight, std=module.window_weight.shape[1] ** -0.5)
            nn.init.zeros_(module.field_weight)
            nn.init.zeros_(module.field_bias)

    def forward(self, batches: Sequence[FieldBatch]) -> list[Forecast]:
        """Predict each batch's frame at its lead time; the forecasts are in the order of the batches."""
        rows = [
            torch.tensor(field_rows(batch.fields, self.config.fields), device=batch.history.device) for batch in batches
        ]
        token_batch = tokenize(batches, self.config.patches, self.config.refinement)
        segmentations = [segment(key(token_batch.layout)) for key in self.keys]
        layout = self.seam.shard(token_batch.layout)
        tokens = self._embed(batches, token_batch, layout, rows)
        lead_time = torch.cat([batch.lead_time for batch in batches]).to(layout.centre.dtype)
        tokens = tokens + self.position(layout.centre, layout.extent) + self.lead_time(lead_time)[layout.sample]
        for block in self.blocks:
            tokens = block(tokens, self.seam, segmentations)
        return self._decode(batches, token_batch, layout, self.norm(tokens), rows)

    @torch.no_grad()
    def predict(self, batch: FieldBatch) -> Tensor:
        """Return the predicted frame ``(b, f, z, y, x)`` in physical units, on the model's device."""
        was_training = self.training
        self.eval()
        (forecast,) = self([batch.to(self.device)])
        self.train(was_training)
        return forecast.field()

    def count_tokens(self, batch: FieldBatch) -> Tensor:
        """Return how many tokens each sample gets, ``(b,)``."""
        layout = tokenize([batch], self.config.patches, self.config.refinement).layout
        return torch.bincount(layout.sample, minlength=batch.num_samples)

    def _embed(
        self,
        batches: Sequence[FieldBatch],
        token_batch: TokenBatch,
        layout: TokenLayout,
        rows: Sequence[Tensor],
    ) -> Tensor:
        """Embed the patches of the layout's tokens, ``(n, e)``."""
        extended = [
            extend(normalised, covered, batch.periodic)
            for normalised, covered, batch in zip(token_batch.normalised, token_batch.covered, batches, strict=True)
        ]
        embedded, order = [], []
        for level, (patch, embedding) in enumerate(zip(self.config.patches, self.embeddings, strict=True)):
            index = (layout.level == level).nonzero(as_tuple=True)[0]
            patches = [
                patchify(fields, patch)[layout.row[own]]
                for fields, own in zip(extended, _by_group(index, layout, len(rows)), strict=True)
            ]
            embedded.append(embedding(patches, rows))
            order.append(index)
        return torch.cat(embedded)[torch.cat(order).argsort()]

    def _decode(
        self,
        batches: Sequence[FieldBatch],
        token_batch: TokenBatch,
        layout: TokenLayout,
        tokens: Tensor,
        rows: Sequence[Tensor],
    ) -> list[Forecast]:
        """Decode the tokens of the last frame and blend their blocks."""
        decoded: list[list[Blocks]] = [[] for _ in batches]
        for level, (patch, decoder) in enumerate(zip(self.config.patches, self.decoders, strict=True)):
            index = ((layout.level == level) & layout.is_last).nonzero(as_tuple=True)[0]
            by_group = _by_group(index, layout, len(batches))
            spatial = [
                layout.row[own] // (batch.num_frames // patch[0]) for own, batch in zip(by_group, batches, strict=True)
            ]
            windows = [
                decoder.windows(normalised[:, -1], covered, batch.periodic)[row]
                for normalised, covered, batch, row in zip(
                    token_batch.normalised, token_batch.covered, batches, spatial, strict=True
                )
            ]
            for group, values in enumerate(decoder(tokens[index], windows, rows)):
                decoded[group].append(Blocks(values, spatial[group], decoder.patch, decoder.cells[1:], decoder.margin))
        num_tokens = torch.bincount(layout.group, minlength=len(batches)).tolist()
        return [
            Forecast(
                batch=batch,
                base=batch.last if self.config.predict == "change" else normalisation.mean[..., None, None, None],
                scale=normalisation.std,
                decoded=self._blend(levels, batch, covered),
                own=None,
                num_tokens=tokens_of_batch,
            )
            for batch, normalisation, levels, covered, tokens_of_batch in zip(
                batches, token_batch.normalisations, decoded, token_batch.covered, num_tokens, strict=True
            )
        ]

    def _blend(self, levels: Sequence[Blocks], batch: FieldBatch, covered: Sequence[int]) -> Tensor:
        """Put the decoded frame of a batch together, ``(b, f, z, y, x)``."""
        z, y, x = batch.grid
        # Around a padded domain there is no neighbour at the other end.
        wraps = [w and size == cells for w, size, cells in zip(batch.periodic, batch.grid, covered, strict=True)]
        add_levels = self.config.token_set == "mul"
        return blend(levels, batch.num_samples, covered, wraps, add_levels=add_levels)[..., :z, :y, :x]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Hugging Face from drawing progress bars, which a model of one file does not need."""
    was_shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            hf_logging.enable_progress_bar()


def _by_group(index: Tensor, layout: TokenLayout, num_groups: int) -> list[Tensor]:
    """Split token indices by group; tokens are packed group after group."""
    counts = torch.bincount(layout.group[index], minlength=num_groups)
    return list(index.split(counts.tolist()))
