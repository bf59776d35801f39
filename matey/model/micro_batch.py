"""Checks the arguments of a model: one batch or several; anything else is refused in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from matey.fields import FieldBatch


def micro_batch(batches: object) -> list[FieldBatch]:
    """Return one batch or several as a list.

    Raises:
        ValueError: there is no batch, or something else is among the batches.
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
    return [each for each in found if isinstance(each, FieldBatch)]


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
