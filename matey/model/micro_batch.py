"""Checks the arguments of a model: one batch or several; anything else is refused in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from matey.fields import FieldBatch


def micro_batch(batches: object) -> list[FieldBatch]:
    """Return one batch or several as a list.

    Raises:
        ValueError: there is no batch, something else is among the batches, or a history requires a gradient.
    """
    found: list[object] = [batches] if isinstance(batches, FieldBatch) else []
    if isinstance(batches, Sequence):
        found = [*batches]
    if not found or not all(isinstance(each, FieldBatch) for each in found):
        kinds = sorted({type(each).__name__ for each in found})
        came = type(batches).__name__ + (f" of {', '.join(kinds) or 'none'}" if isinstance(batches, Sequence) else "")
        raise ValueError(
            f"A model takes a FieldBatch or a list of them, got {came}; make one by matey.FieldBatch(system, fields, history, "
            "lead_time)."
        )
    known = [each for each in found if isinstance(each, FieldBatch)]
    if torch.is_grad_enabled() and any(each.history.requires_grad for each in known):
        raise ValueError(
            "A history requires a gradient, which would be missing: fields are normalised and cut into tokens without one. "
            "Give history.detach(), or predict within torch.no_grad()."
        )
    return known


def single(batch: object) -> FieldBatch:
    """Return the argument if it is one batch.

    Raises:
        ValueError: the argument is something else.
    """
    if not isinstance(batch, FieldBatch):
        raise ValueError(
            f"predict takes one FieldBatch, got {type(batch).__name__}; call the model itself with a list of them."
        )
    return batch
