"""Checks whether a run's network fits its data and the machine, and lays out the tokens of a micro-batch.

The layout is made before sequence groups exist: for fields of any size, in boxes divided among all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import product

import torch
from torch import Tensor

from matey.config import ConfigError, RunConfig
from matey.data.reading import read_box, read_windows, samples_of_windows
from matey.data.trajectories import TrajectorySet
from matey.data.views import CoarsenedTrajectories
from matey.data.windows import Window, alike
from matey.mistakes import nearest_name
from matey.model.attention import has_flash
from matey.model.configuration import MateyConfig
from matey.parallel.collectives import rank, shared_out, world_size
from matey.parallel.topology import Topology
from matey.samples import Box, Samples
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.patches import Patch, cover, patch_grid
from matey.tokens.refinement import check_window, is_of_patches
from matey.tokens.tokenize import (
    check_samples,
    criteria_by_coarsest,
    refined_from,
    statistics_from,
    sums_by_coarsest,
    tokenize,
)
from matey.train.memory import group_size
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
        return max(layout_of(run, data, config, step).num_tokens for step in range(AUTO_DRAWS))

    size = group_size(run, config, most_tokens, value_bytes, world_size())
    try:
        return Topology(rank(), world_size(), size, config.num_heads)
    except ValueError as error:
        raise ConfigError(str(error)) from None


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


AT_ONCE = 2**28
"""Bytes of a history that a rank reads at once."""


def layout_of(run: RunConfig, data: RunData, config: MateyConfig, step: int = 0) -> TokenLayout:
    """Lay out the tokens of a micro-batch of a step, the same on every rank; all ranks must call.

    Raises:
        ValueError: see `matey.tokens.tokenize.tokenize`.
        DataError: see ``TrajectorySet.read``.
    """
    windows = data.mixture.global_batch(step, run.train.micro_batch)
    return layout_of_windows(data.mixture.sets, windows, run.data.history, config)


def layout_of_windows(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, config: MateyConfig
) -> TokenLayout:
    """Lay out the tokens of windows, see `layout_of`."""
    if not is_of_patches(config.refinement):  # a criterion from a package may look beyond a patch
        return tokenize(read_windows(sets, windows, num_frames), config.patches, config.refinement).layout
    groups = alike(sets, windows)
    samples = [samples_of_windows(sets, group, num_frames) for group in groups]
    check_samples(samples, config.patches, config.refinement)
    return layout_tokens(
        [(batch.number, *batch.window) for batch in samples],
        [_refined(sets, *of_batch, config) for of_batch in zip(groups, samples, strict=True)],
        config.patches,
        keep_parents=config.refinement.keep_parents,
    )


def boxes_at_once(samples: Samples, coarsest: Patch) -> Iterator[Box]:
    """Yield boxes with histories of about `AT_ONCE` bytes, at least a coarsest patch, that together hold all cells of a batch.

    They come in the order of their patches along ``b Z Y X``, and each holds consecutive patches.
    """
    bytes_of_patch = 4 * samples.window[0] * len(samples.fields) * math.prod(coarsest[1:])
    most, grid = max(AT_ONCE // bytes_of_patch, 1), _grid(samples, coarsest)
    inner = [math.prod(grid[axis:]) for axis in range(2, 5)]
    # As many whole layers, rows or patches as may be read at once: only one of the axes has more than one patch beyond it.
    steps = [max(min(most // beyond, size), 1) for size, beyond in zip(grid[1:], inner, strict=True)]
    starts = (range(0, size, step) for size, step in zip(grid[1:], steps, strict=True))
    for sample, *first in product(range(samples.number), *starts):
        sides = zip(first, steps, coarsest[1:], samples.window[1:], strict=True)
        z, y, x = (slice(at * cells, min((at + step) * cells, length)) for at, step, cells, length in sides)
        yield sample, (z, y, x)


def _grid(samples: Samples, coarsest: Patch) -> tuple[int, int, int, int]:
    """Return the number of samples and of coarsest patches along ``z, y, x``."""
    return samples.number, *patch_grid(cover((coarsest[0], *samples.window[1:]), coarsest), coarsest)[1:]


def _refined(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], samples: Samples, config: MateyConfig
) -> list[Tensor]:
    """Decide which patches of a batch are split; with one level of patches nothing is read."""
    patches, coarsest = config.patches, config.patches[0]
    if len(patches) == 1:
        return []
    grid, boxes = _grid(samples, coarsest), list(boxes_at_once(samples, coarsest))

    def history_of(box: Box) -> Tensor:
        sample, sides = box
        window = windows[sample]
        values = read_box(
            sets[window.set_index], window.trajectory, window.start, window.start + samples.window[0], sides
        )
        return torch.from_numpy(values)[None]  # (1, t, f, z, y, x)

    sums = shared_out(lambda box: sums_by_coarsest(history_of(box), coarsest), boxes)
    normalisation = statistics_from(torch.cat(sums), samples, grid, coarsest)
    rows = shared_out(
        lambda box: criteria_by_coarsest(history_of(box), normalisation.of([box[0]]), patches, config.refinement), boxes
    )
    return refined_from(torch.cat(rows), samples, grid, patches, config.refinement)
