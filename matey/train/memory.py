"""Estimates the memory of a micro-batch's activations, and the smallest sequence group that brings it under a limit."""

from __future__ import annotations

from collections.abc import Callable

from matey.config import ConfigError, RunConfig
from matey.model.blocks import scheme_keys
from matey.model.configuration import MateyConfig
from matey.tokens.neighbours import places_around

PER_ATTENTION, PER_MLP = 7, 10
"""Number of values of a token's width that a block keeps for the backward pass, for each attention and for its MLP.

Attention: input, its norm, queries, keys and values, the gathered result, and the residual. MLP: input, norm, residual, and two
values of the hidden width, which counts as four.
"""

PER_MIXING = 2
"""Number of further values that mixing neighbours keeps, besides those of the neighbours: before and after its nonlinearity."""

AHEAD_SHARE = 1 / 8
"""Share of a GPU's memory that a micro-batch may take to be copied there while the one before is in use."""


def is_copied_ahead(num_bytes: float, memory: float) -> bool:
    """Return whether a micro-batch is copied to a GPU with ``memory`` bytes before the step has released the one before."""
    return num_bytes <= AHEAD_SHARE * memory


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
    size = run.parallel.sequence_parallel_size
    if size != "auto":
        return size
    num_attentions = len(scheme_keys(config.scheme, config.patches))
    recompute, offloaded = run.parallel.checkpoint_blocks, run.parallel.offload_activations
    kept = activation_bytes(config, most_tokens(), num_attentions, recompute, value_bytes, offloaded=offloaded)
    assert run.parallel.memory_limit is not None, "the schema wants a limit with auto"
    return smallest_group(kept, run.parallel.memory_limit * 2**30, num_ranks)


def smallest_group(activations: int, limit: float, num_ranks: int) -> int:
    """Return the smallest divisor of ``num_ranks`` by which activations are split into at most ``limit`` bytes per rank.

    Raises:
        ConfigError: even all ranks together are too few.
    """
    for size in (size for size in range(1, num_ranks + 1) if num_ranks % size == 0):
        if activations / size <= limit:
            return size
    raise ConfigError(
        f"The activations of a micro-batch take {activations / 2**30:.3g} GiB, which {num_ranks} ranks with "
        f"parallel.memory_limit {limit / 2**30:g} GiB each cannot hold; raise that limit, start more ranks, set "
        "parallel.checkpoint_blocks to 'all', or lower train.micro_batch."
    )
