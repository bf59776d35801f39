"""The network that a run asks for, and whether it fits the data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from matey.config import ConfigError, RunConfig, parse_config
from matey.data.trajectories import TrajectorySet
from matey.fields import field_rows
from matey.model.configuration import SIZES, MateyConfig
from matey.tokens.refinement import check_window

# What the run YAML says of a network, and what `MateyConfig` calls it.
NAMES = {
    "model": {name: name for name in ("scheme", "drop_path", "local", "local_scales", "statistics", "predict")},
    "tokens": {
        "set": "token_set",
        "patches": "patches",
        "rule": "refine_rule",
        "refine": "refine_amount",
        "values": "refine_values",
        "change": "refine_change",
    },
    "data": {"history": "history"},
}
# What the run YAML does not say.
FIXED = ("mlp_ratio", "halo", "overlap", "num_wavelengths", "longest_lead")


def with_network_of(run: RunConfig, pretrained: MateyConfig) -> RunConfig:
    """Fill in what the run does not state from a pretrained model; the vocabulary is left to `with_vocabulary`.

    Raises:
        ConfigError: the model has none of the named sizes, or what the run states contradicts the rest.
    """
    tree = run.model_dump(mode="json")
    for section, names in NAMES.items():
        stated = getattr(run, section).model_fields_set
        tree[section] |= {key: getattr(pretrained, name) for key, name in names.items() if key not in stated}
    shape = (pretrained.num_heads, pretrained.width, pretrained.num_blocks)
    size = next((name for name, numbers in SIZES.items() if numbers == shape), None)
    if size is None:
        raise ConfigError(
            f"The pretrained model has {shape[0]} heads, width {shape[1]} and {shape[2]} blocks, which is none of the sizes "
            f"{', '.join(SIZES)}."
        )
    if "size" not in run.model.model_fields_set:
        tree["model"]["size"] = size
    return parse_config(tree, "the run YAML with what it leaves to the pretrained model")


def with_vocabulary(run: RunConfig, sets: Sequence[TrajectorySet], known: Sequence[str] = ()) -> RunConfig:
    """Fill in the field vocabulary from the data, or check the given one; fields ``known`` to the weights come first.

    Raises:
        ConfigError: the data holds a field that ``model.fields`` lacks.
    """
    names = run.model.fields
    if names is None:
        names = [name for data in sets for name in data.fields]
    vocabulary = tuple(dict.fromkeys([*known, *names]))
    for data in sets:
        try:
            field_rows(data.fields, vocabulary)
        except ValueError as error:
            raise ConfigError(f"{data.system}: {error}") from None
    return run.model_copy(update={"model": run.model.model_copy(update={"fields": vocabulary})})


def check_fit(config: MateyConfig, sets: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if the histories cannot be cut into tokens as the network asks."""
    for data in sets:
        for trajectory in data.trajectories:
            for axis, cells, size in zip("zyx", config.patches[0][1:], trajectory.grid, strict=True):
                if cells > 2 * size:
                    raise ConfigError(
                        f"{trajectory.source}: a patch of {cells} cells along {axis} is mostly padding on a grid of {size}; "
                        f"lower tokens.patches, which are {[list(patch) for patch in config.patches]}."
                    )
            try:
                check_window((config.history, *trajectory.grid), config.patches, config.refinement)
            except ValueError as error:
                raise ConfigError(f"{trajectory.source}: {error}") from None


def check_attention(backend: str, is_bf16: bool) -> None:
    """Raise ConfigError if an attention backend that is asked for by name cannot run here, before anything is computed."""
    if backend not in ("varlen", "flash_attn"):
        return
    missing = ""
    if not torch.cuda.is_available():
        missing = "a GPU, and PyTorch sees none"
    elif not is_bf16:
        missing = "bf16, which the DeepSpeed configuration does not turn on"
    elif backend == "flash_attn" and not find_spec("flash_attn"):
        missing = "the package flash-attn, which is not installed"
    if missing:
        raise ConfigError(
            f"model.attention: {backend!r} needs {missing}; use 'auto', which chooses among those available."
        )


def model_config(run: RunConfig, pretrained: MateyConfig | None = None) -> MateyConfig:
    """Return the architecture that the run asks for; what a run YAML does not say is as in the pretrained model."""
    stated = {name: getattr(getattr(run, section), key) for section in NAMES for key, name in NAMES[section].items()}
    fixed = {} if pretrained is None else {name: getattr(pretrained, name) for name in FIXED}
    return MateyConfig.from_size(
        run.model.size, fields=run.model.fields, attention=run.model.attention, **stated, **fixed
    )
