"""Checks whether a run's network fits its data and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from matey.config import ConfigError, RunConfig
from matey.data.coarsened import CoarsenedTrajectories
from matey.data.trajectories import TrajectorySet
from matey.mistakes import nearest_name
from matey.model.attention import has_flash
from matey.model.configuration import MateyConfig
from matey.tokens.refinement import check_window


def with_vocabulary(run: RunConfig, sets: Sequence[TrajectorySet], pretrained: MateyConfig | None = None) -> RunConfig:
    """Fill in the field vocabulary from the data, or check that of the run; fields of a pretrained model come first.

    Raises:
        ConfigError: the data holds a field that ``model.fields`` lacks, or no set has a field of ``model.given`` or a
            parameter of ``model.parameters``.
    """
    _check_told(run, sets, pretrained)
    known = [] if pretrained is None else pretrained.fields
    held = tuple(dict.fromkeys(name for data in sets for name in data.fields))
    stated = held if run.model.fields is None else run.model.fields
    vocabulary = tuple(dict.fromkeys([*known, *stated, *run.model.given]))
    if lacking := [name for name in held if name not in vocabulary]:
        unheard = [name for name in run.model.fields or () if name not in held]
        for name in unheard:
            if meant := nearest_name(name, lacking):
                raise ConfigError(f"model.fields names {name!r}, which no data set holds.{meant}")
        (system, *_) = (data.system for data in sets if lacking[0] in data.fields)
        raise ConfigError(
            f"model.fields lacks {lacking[0]!r}, which {system} holds; add it, leave model.fields out to take the fields of "
            "all data sets, or leave this data out."
        )
    return run.model_copy(update={"model": run.model.model_copy(update={"fields": vocabulary})})


def _check_told(run: RunConfig, sets: Sequence[TrajectorySet], pretrained: MateyConfig | None) -> None:
    """Raise ConfigError if the run names a given field or parameter that neither a set nor the pretrained model has."""
    of_sets = {
        "given": {name for data in sets for name in (*data.given, *data.left_out)},
        "parameters": {name for data in sets for about in data.trajectories for name in about.parameters},
    }
    for key, held in of_sets.items():
        known = held.union(() if pretrained is None else getattr(pretrained, key))
        for name in getattr(run.model, key):
            if name not in known:
                raise ConfigError(
                    f"model.{key} names {name!r}, which no data set has; there are {', '.join(sorted(known)) or 'none'}."
                    f"{nearest_name(name, known)}"
                )


def check_fit(config: MateyConfig, sets: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if the histories cannot be cut into tokens as the network asks."""
    for data in sets:
        view = f", {data.view}" if isinstance(data, CoarsenedTrajectories) else ""
        for trajectory in data.trajectories:
            where = f"{trajectory.source}{view}"
            for axis, cells, size in zip("zyx", config.patches[0][1:], trajectory.grid, strict=True):
                if cells > 2 * size:
                    raise ConfigError(
                        f"{where}: a patch of {cells} cells along {axis} is mostly padding on a grid of {size}; "
                        f"lower tokens.patches, which are {[list(patch) for patch in config.patches]}."
                    )
            try:
                check_window((config.history, *trajectory.grid), config.patches, config.refinement)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None


def check_attention(backend: str, is_bf16: bool) -> None:
    """Raise ConfigError if an attention backend that is asked for by name cannot run here, before anything is computed."""
    if backend not in ("varlen", "flash_attn"):
        return
    missing = ""
    if not torch.cuda.is_available():
        missing = "a GPU, and PyTorch sees none"
    elif not has_flash():
        missing = "a GPU of at least compute capability 8.0 (NVIDIA's Ampere), which this one is not"
    elif not is_bf16:
        missing = "bf16, which the DeepSpeed configuration does not turn on"
    elif backend == "flash_attn" and not find_spec("flash_attn"):
        missing = "the package flash-attn, which is not installed"
    if missing:
        raise ConfigError(
            f"model.attention: {backend!r} needs {missing}; use 'auto', which chooses among those available."
        )
