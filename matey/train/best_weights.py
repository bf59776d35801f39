"""Writes the best weights of a run in Hugging Face form, so that a kill at any moment leaves them whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from matey.checkpoints.durable import flush, free_name
from matey.model.lora import plain_weights
from matey.model.matey import MateyModel, quiet


def replace_model(folder: Path, old: Path, module: MateyModel, weights: dict[str, Tensor]) -> None:
    """Replace a model's weights; until the new ones are whole on disk, the earlier ones stay, here or under the name ``old``.

    Args:
        folder: the model's folder.
        old: folder of the earlier weights, for the moment in which the new ones get their name.
        module: the network that is trained, as this rank holds it.
        weights: whole parameters of the network by name.

    Raises:
        OSError, RuntimeError, SafetensorError: the weights cannot be written.
    """
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        # A model without weights of its own: the run's module may be in bfloat16, and config.json would say so.
        with torch.device("meta"):
            model = MateyModel(module.config)
        with quiet():
            model.save_pretrained(new, state_dict=plain_weights(module, weights))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    flush(new)
    if folder.exists():
        _make_way(old)
        folder.rename(old)
    new.rename(folder)
    _make_way(old)


def _make_way(old: Path) -> None:
    """Remove earlier weights; a folder that cannot be removed, as on NFS while a program reads it, gets a number and stays."""
    numbered = [path for path in old.parent.glob(f"{old.name}.*") if path.suffix[1:].isdigit()]
    for path in (old, *numbered):
        shutil.rmtree(path, ignore_errors=True)
    if old.exists():
        old.rename(free_name(old))
