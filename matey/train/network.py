"""Checks whether a run's network fits its data and the machine: its fields, its tokens, and the memory of its activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from matey.config import ConfigError, RunConfig
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.views import CoarsenedTrajectories
from matey.mistakes import nearest_name
from matey.model.attention import has_flash
from matey.model.blocks import scheme_keys
from matey.model.configuration import MateyConfig
from matey.parallel.collectives import done_by_rank_zero, rank, world_size
from matey.parallel.exchange import Topology
from matey.tokens.layout import TokenLayout
from matey.tokens.neighbours import places_around
from matey.tokens.refinement import check_window
from matey.tokens.tokenize import tokenize
from matey.train.run_data import RunData


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


AUTO_DRAWS = 4  # number of micro-batches; the one with most tokens decides the size of a sequence group


def topology_of(run: RunConfig, data: RunData, config: MateyConfig, value_bytes: int) -> Topology:
    """Return this rank's place among all ranks.

    Raises:
        ConfigError: the size of a sequence group does not divide the ranks, or none is large enough for the memory
            limit.
    """

    def most_tokens() -> int:
        return done_by_rank_zero(lambda: max(layout_of(run, data, config, n).num_tokens for n in range(AUTO_DRAWS)))

    size = group_size(run, config, most_tokens, value_bytes, world_size())
    return Topology(rank(), world_size(), size, config.num_heads)


def check_attention(backend: str, is_bf16: bool) -> None:
    """Raise ConfigError if an attention backend that is asked for by name cannot run here, before anything is computed."""
    if backend not in ("varlen", "flash_attn"):
        return
    is_installed = backend == "varlen" or find_spec("flash_attn")
    if not (torch.cuda.is_available() and has_flash() and is_bf16 and is_installed):
        package = "" if is_installed else ", and the package flash-attn"
        raise ConfigError(
            f"model.attention: {backend!r} needs bf16 in the DeepSpeed configuration, on a GPU of at least compute "
            f"capability 8.0 (NVIDIA's Ampere){package}; use 'auto', which chooses among those available."
        )


PER_ATTENTION, PER_MLP = 7, 10
"""Number of values of a token's width that a block keeps for the backward pass, for each attention and for its MLP.

Attention: input, its norm, queries, keys and values, the gathered result, and the residual. MLP: input, norm, residual, and two
values of the hidden width, which counts as four.
"""

PER_MIXING = 2
"""Number of further values that mixing neighbours keeps, besides those of the neighbours: before and after its nonlinearity."""


def activation_bytes(
    config: MateyConfig,
    num_tokens: float,
    num_attentions: int,
    checkpoint_blocks: str = "none",
    value_bytes: int = 4,
    *,
    offloaded: bool = False,
) -> int:
    """Return the bytes that activations of ``num_tokens`` tokens take on one rank, in blocks and in maps of neighbours.

    Args:
        config: the model's configuration.
        num_tokens: number of tokens of a micro-batch that the rank holds.
        num_attentions: number of attentions in a block: 1 for ``vit``, 2 for ``svit``, 3 or 4 for ``avit``.
        checkpoint_blocks: the setting ``parallel.checkpoint_blocks``.
        value_bytes: size of a value in bytes: 4 for float32, 2 for bfloat16.
        offloaded: whether the inputs of recomputed blocks wait in main memory, and do not count.
    """
    mixing = (len(places_around(config.patches)) + PER_MIXING) * config.mixes_neighbours
    block = num_attentions * PER_ATTENTION + PER_MLP * config.mlp_ratio / 4 + mixing
    blocks = config.num_blocks * config.has_tokens
    given = 0 if offloaded else 1  # of a recomputed block, its input
    kept = {"none": blocks * block, "all": blocks * given + block, "every_other": blocks / 2 * (block + given) + block}
    return int(num_tokens * config.width * value_bytes * (kept[checkpoint_blocks] + 2 * config.maps * mixing))


def group_size(
    run: RunConfig, config: MateyConfig, most_tokens: Callable[[], int], value_bytes: int, num_ranks: int
) -> int:
    """Return ``parallel.sequence_parallel_size`` or, if that is ``auto``, the smallest size that the memory limit allows.

    Args:
        run: the run.
        config: the configuration of its model.
        most_tokens: function that returns the number of tokens of the largest micro-batch; called for ``auto`` alone.
        value_bytes: size of a value in bytes.
        num_ranks: number of all ranks.

    Raises:
        ConfigError: even all ranks together are too few.
    """
    settings = run.parallel
    if settings.sequence_parallel_size != "auto":
        return settings.sequence_parallel_size
    assert settings.memory_limit is not None, "the schema wants a limit with auto"
    num_attentions = len(scheme_keys(config.scheme, config.patches))
    how = settings.checkpoint_blocks, value_bytes
    kept = activation_bytes(config, most_tokens(), num_attentions, *how, offloaded=settings.offload_activations) / 2**30
    for size in range(1, num_ranks + 1):
        if num_ranks % size == 0 and kept / size <= settings.memory_limit:
            return size
    raise ConfigError(
        f"The activations of a micro-batch take {kept:.3g} GiB, which {num_ranks} ranks with parallel.memory_limit "
        f"{settings.memory_limit:g} GiB each cannot hold; raise that limit, start more ranks, set "
        "parallel.checkpoint_blocks to 'all', or lower train.micro_batch."
    )


def layout_of(run: RunConfig, data: RunData, config: MateyConfig, step: int = 0) -> TokenLayout:
    """Lay out the tokens of a micro-batch of a step, whose fields are read whole."""
    windows = data.mixture.global_batch(step, run.train.micro_batch)
    batches = read_windows(data.mixture.sets, windows, run.data.history)
    return tokenize(batches, config.patches, config.refinement).layout
