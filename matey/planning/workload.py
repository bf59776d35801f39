"""The workload of a step: samples, their tokens, which tokens attend to each other, and the parts of a batch that ranks hold.

Samples are drawn as in training or, if the data does not exist yet, made on assumed grids with a given share of split patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, repeat

import numpy as np
import torch
from torch import Tensor

from matey.config import ConfigError, RunConfig
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window, alike
from matey.fields import Samples
from matey.model.blocks import scheme_keys
from matey.model.boxes import Cut, reach_of
from matey.model.configuration import MateyConfig, model_config
from matey.model.prepare import TokenPlaces
from matey.parallel.exchange import Topology, shares
from matey.parallel.sequence import cheaper_tokens_plan
from matey.planning import check_named
from matey.planning.operations import Costs, Operations, count_operations
from matey.tokens.decomposition import Frames, Span
from matey.tokens.layout import TokenLayout, joined, layout_tokens, stacked
from matey.tokens.neighbours import neighbours_of
from matey.tokens.patches import cover, patch_grid
from matey.tokens.refinement import check_window, split_by
from matey.tokens.segments import segment
from matey.tokens.tokenize import tokenize
from matey.train.network import check_fit, with_vocabulary
from matey.train.run_data import open_data

WindowSize = tuple[int, int, int, int]
"""Size ``t, z, y, x`` of a sample in frames and cells."""

MOST_PATCHES = 2**16
"""Most finest patches in all assumed samples together; on a large grid chance evens out, so one sample is enough."""

MOST_BYTES = 2**33
"""Most bytes of the windows of a run's data together whose tokens are counted, if more than `_least` are looked at."""


@dataclass(frozen=True)
class Assumed:
    """Assumptions about data that does not exist yet.

    Attributes:
        grids: cells ``z, y, x`` of each data set in the run's order; the last grid also counts for all further data sets.
        refined: share of the patches of each level that is split.
        num_fields: number of fields of a system.
    """

    grids: tuple[tuple[int, int, int], ...] = ((1, 128, 128),)
    refined: float = 0.2
    num_fields: int = 4


@dataclass(frozen=True, eq=False)  # hashed by identity, as a key of caches
class Sample:
    """One sample as the network sees it.

    Attributes:
        system: name of the PDE system; for data that does not exist yet, its path.
        window: size of the sample.
        num_fields: number of predicted fields of the system.
        layout: the layout of the sample's tokens.
        num_given: number of given fields.
        given_frames: number of frames of the given fields; 1 if they are constant in time.
        periodic: whether the domain wraps around along ``z, y, x``.
    """

    system: str
    window: WindowSize
    num_fields: int
    layout: TokenLayout
    num_given: int = 0
    given_frames: int = 0
    periodic: tuple[bool, bool, bool] = (False, False, False)

    @property
    def num_inputs(self) -> int:
        """Number of input fields of the network."""
        return self.num_fields + self.num_given

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the sample."""
        return self.layout.num_tokens

    @property
    def bytes_of_cell(self) -> int:
        """Bytes in a cell of the sample's history, target and given fields, in float32."""
        return 4 * ((self.window[0] + 1) * self.num_fields + self.given_frames * self.num_given)

    @property
    def num_bytes(self) -> int:
        """Bytes of the sample's history, target and given fields, in float32."""
        return self.bytes_of_cell * math.prod(self.window[1:])


def one_batch(sample: Sample, num_samples: int) -> Samples:
    """Describe samples of a kind as one batch."""
    return Samples(sample.system, ("",), sample.window, torch.float32, torch.empty(num_samples), sample.periodic)


def draw_samples(
    run: RunConfig, num_samples: int, pretrained: MateyConfig | None = None
) -> tuple[MateyConfig, tuple[Sample, ...]]:
    """Return a run's network, and samples drawn from its data as in training; one window is held at a time."""
    data = open_data(run)
    run = with_vocabulary(run, data.all_sets, pretrained)
    config = model_config(run, pretrained)
    check_fit(config, data.sets_and_views)
    sets, num_frames = data.mixture.sets, run.data.history
    largest = max(
        4 * (num_frames + 1) * len(source.fields) * math.prod(source.trajectories[number].grid)
        for source, numbers in zip(sets, data.mixture.train, strict=True)
        for number in numbers
    )
    windows = data.mixture.global_batch(0, min(num_samples, max(MOST_BYTES // largest, _least(len(sets)))))
    in_order = [window for group in alike(sets, windows) for window in group]
    return config, _spread([_counted(sets, window, num_frames, config) for window in in_order])


def _least(num_sets: int) -> int:
    """Return the number of samples that are looked at however large they are, so that each data set has some."""
    return 1 if num_sets == 1 else 4 * num_sets


def _counted(sets: Sequence[TrajectorySet], window: Window, num_frames: int, config: MateyConfig) -> Sample:
    """Return a window of the data with the layout of its tokens."""
    source, (batch,) = sets[window.set_index], read_windows(sets, [window], num_frames)
    about, layout = batch.samples, tokenize([batch], config.patches, config.refinement).layout
    given_frames = num_frames + window.lead if source.varying else bool(source.given)
    given = len(source.given), int(given_frames)
    return Sample(about.system, about.window, len(about.fields), layout, *given, about.periodic)


def make_samples(
    run: RunConfig, assumed: Assumed, num_samples: int, pretrained: MateyConfig | None = None
) -> tuple[MateyConfig, tuple[Sample, ...]]:
    """Return a run's network, and samples on the assumed grids with random refinement; data sets are drawn by weight."""
    check_named(run)
    network = config = model_config(run, pretrained)
    if config.tokens.rule == "threshold":
        tokens = config.tokens.model_copy(
            update={"rule": "fraction", "refine": assumed.refined}
        )  # whatever the fields are
        config = MateyConfig.from_dict(config.to_dict() | {"tokens": tokens})
    views = [(1, 1.0), *((view.cells, view.weight) for view in run.data.coarsened)]
    of_sets = list(zip(run.data.sets, chain(assumed.grids, repeat(assumed.grids[-1])), strict=False))
    drawn = [(data, _coarser(grid, cells), data.weight * weight) for cells, weight in views for data, grid in of_sets]
    windows = [(run.data.history, *grid) for _, grid, _ in drawn]
    for window, (data, *_) in zip(windows, drawn, strict=True):
        try:
            check_window(window, config.patches, config.refinement)
        except ValueError as error:
            raise ConfigError(f"{data.path}: {error}") from None
    finest = config.patches[-1]
    most = max(math.prod(patch_grid(cover(window, finest), finest)) for window in windows)
    num_samples = min(num_samples, max(MOST_PATCHES // most, _least(len(windows))))
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor([weight for *_, weight in drawn])
    points = (torch.arange(num_samples) + 0.5) / num_samples * weights.sum()
    samples = []
    for index in torch.searchsorted(weights.cumsum(0), points).tolist():
        layout = _layout_by_chance(windows[index], config, random)
        samples.append(Sample(drawn[index][0].path, windows[index], assumed.num_fields, layout))
    return network, _spread(samples)


def _coarser(grid: tuple[int, int, int], cells: int) -> tuple[int, int, int]:
    """Return the grid of means over ``cells`` cells along each axis longer than 1."""
    z, y, x = (-(-size // cells) if size > 1 else 1 for size in grid)
    return z, y, x


def _layout_by_chance(window: WindowSize, config: MateyConfig, random: torch.Generator) -> TokenLayout:
    """Return the layout of a sample with this window and randomly chosen split patches; no field is made."""
    covered = cover(window, config.patches[0])
    chances = [torch.rand(1, *patch_grid(covered, patch)[1:], generator=random) for patch in config.patches[:-1]]
    splits = split_by(chances, window, config.patches, config.refinement)
    return layout_tokens([(1, *window)], [splits], config.patches, keep_parents=config.refinement.keep_parents)


def _spread(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Mix samples ordered by system, so that consecutive samples are like a micro-batch of training."""
    order = np.random.default_rng(0).permutation(len(samples))
    return tuple(samples[number] for number in order)


NUM_SAMPLES = 32  # number of windows whose tokens are counted
DRAWS = 10_000  # number of random draws that estimate the load imbalance between groups


@dataclass(frozen=True, eq=False)  # hashed by identity, as a key of caches
class Workload:
    """Samples in the proportions of training, and the network that processes them.

    Attributes:
        config: the model's configuration.
        samples: the samples, drawn or assumed.
    """

    config: MateyConfig
    samples: tuple[Sample, ...]

    @cached_property
    def operations(self) -> Operations:
        """The operations and parameters of the network."""
        return count_operations(self.config)

    @property
    def num_attentions(self) -> int:
        """Number of attentions of a block."""
        return len(scheme_keys(self.config.scheme, self.config.patches))

    @cached_property
    def num_tokens(self) -> float:
        """Mean number of tokens per sample."""
        return sum(sample.num_tokens for sample in self.samples) / len(self.samples)

    @cached_property
    def num_uniform_tokens(self) -> float:
        """Mean number of tokens per sample if samples were cut into the finest patches everywhere."""
        finest = self.config.patches[-1]
        counts = [math.prod(patch_grid(cover(sample.window, finest), finest)) for sample in self.samples]
        return sum(counts) / len(counts)

    @property
    def most_tokens(self) -> int:
        """Number of tokens of the largest sample; a long run meets micro-batches made only of such samples."""
        return max(sample.num_tokens for sample in self.samples)

    def imbalance(self, num_groups: int, num_samples: int) -> float:
        """Return the operations of the most loaded group in a step divided by the mean over groups, averaged over steps.

        Args:
            num_groups: number of sequence groups, each with its own samples.
            num_samples: number of samples of a group in a step.
        """
        if num_groups == 1:
            return 1.0
        costs = np.add(self._block_costs, self._outside_costs)
        num_steps = max(1, DRAWS // (num_groups * num_samples))
        of_groups = np.random.default_rng(0).choice(costs, (num_steps, num_groups, num_samples)).mean(axis=2)
        return float((of_groups.max(axis=1) / of_groups.mean(axis=1)).mean())

    def keys(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Return the key of each attention of a block for a micro-batch, ``(n,)`` each."""
        keys = []
        for key in scheme_keys(self.config.scheme, self.config.patches):
            parts, first = [], 0
            for sample in samples:
                part = key(sample.layout)
                parts.append(part + first)
                first += int(part.max()) + 1
            keys.append(torch.cat(parts))
        return keys

    @property
    def forward_operations(self) -> float:
        """Mean operations in the matrix products of a sample's forward pass, attention included."""
        return self.block_operations + self.outside_operations

    @property
    def block_operations(self) -> float:
        """The part of `forward_operations` in the transformer blocks."""
        return sum(self._block_costs) / len(self.samples)

    @property
    def outside_operations(self) -> float:
        """The part of `forward_operations` outside the transformer blocks."""
        return sum(self._outside_costs) / len(self.samples)

    def outside_of_rank(self, num_samples: int, ways: int) -> float:
        """Return the operations outside the blocks in a micro-batch's forward pass, on the rank with most cells and halos."""
        if ways == 1 or self.operations.cells is None:
            return num_samples * self.outside_operations / ways
        total = 0.0
        for sample, outside in zip(self.samples, self._outside_costs, strict=True):
            parts = parts_of(self, (sample,) * num_samples, ways)
            total += num_samples * (outside - self._on_cells(sample)) / ways
            total += max(part.num_samples * self._on_cells(sample, part) for part in parts)
        return total / len(self.samples)

    def _on_cells(self, sample: Sample, part: Part | None = None) -> int:
        """Return the operations on the cells of a sample, or of those of its cells that a rank holds."""
        if self.operations.cells is None:
            return 0
        cut = Cut.of_rank(one_batch(sample, 1), self.config, 0, 1) if part is None else part.cuts[0]
        return self.operations.cells.operations(sample.num_inputs, sample.num_fields, cut.spans)

    @cached_property
    def _block_costs(self) -> list[int]:
        costs = []
        for sample in self.samples:
            runs = (run for key in self.keys([sample]) for run in segment(key).runs)
            products = sum(count * queries * keys for count, queries, keys in runs)
            attention = 4 * self.config.width * self.config.num_blocks * self.config.has_tokens * products
            costs.append(attention + sample.num_tokens * self.operations.per_token)
        return costs

    @cached_property
    def _outside_costs(self) -> list[int]:
        found, costs = self.operations, []
        for sample in self.samples:
            outside = int(_outside(sample, found.embed, found.last).sum())
            costs.append(outside + sample.num_tokens * found.outside_per_token + self._on_cells(sample))
        return costs


@cache
def sequence_plans(workload: Workload, samples: tuple[Sample, ...], group: Topology) -> list[float | None]:
    """Return how each attention of a block exchanges values among the ranks that share a micro-batch.

    If each segment moves to one rank: the number of values that leave the ranks in a forward pass, summed over the group and
    divided by the embedding width; None if tokens are exchanged for heads, see `matey.parallel.sequence`.
    """
    plans = (cheaper_tokens_plan(key, group) for key in workload.keys(samples))
    return [None if plan is None else plan.num_moved for plan in plans]


@cache
def outside_values(workload: Workload, num_samples: int, ways: int) -> tuple[int, int, int]:
    """Return the values that a rank keeps for the backward pass outside the blocks, on the rank that keeps most.

    A rank with coarse tokens has more than its share, because the values of a patch grow with its number of cells.

    Args:
        workload: the samples, of each of which a micro-batch may hold copies alone, and the network.
        num_samples: number of samples of the micro-batch.
        ways: number of ranks that share the micro-batch.

    Returns:
        The numbers of values of tokens, and of the network on the cells, both in its precision; and of those in the
        precision of the fields.
    """
    costs, found = workload.operations, []
    for sample in workload.samples:
        fields = [(seen, 0, 0) for seen, _, _ in costs.embed_keeps]
        embed = [(0, predicted, rest) for _, predicted, rest in costs.embed_keeps]
        seen, kept = _of_tokens(sample, fields), _outside(sample, embed, costs.last_keeps)
        for part in parts_of(workload, (sample,) * num_samples, ways):
            (cut,), own = part.cuts, part.in_boxes % sample.num_tokens
            tokens, cells, of_fields = int(kept[own].sum()), 0, int(seen[own].sum())
            if costs.cells is not None:
                values = costs.cells.keeps(sample.num_inputs, sample.num_fields, cut.spans)
                cells, of_fields = part.num_samples * values[1], of_fields + part.num_samples * values[0]
            found.append((tokens, cells, of_fields))
    return max(found, key=sum)


def _outside(sample: Sample, embed: Sequence[Costs], last: Sequence[Costs]) -> Tensor:
    """Return the cost ``(n,)`` of each token of a sample outside the blocks: embedding it, and what the last frame adds."""
    return _of_tokens(sample, embed) + _of_tokens(sample, last) * sample.layout.is_last


def _of_tokens(sample: Sample, levels: Sequence[Costs]) -> Tensor:
    """Return the cost ``(n,)`` of each token of a sample at its level: that of all its fields, and the rest."""
    of_levels = [seen * sample.num_inputs + predicted * sample.num_fields + rest for seen, predicted, rest in levels]
    return torch.tensor(of_levels or [0] * len(sample.layout.kinds.level))[sample.layout.level]


def load_workload(
    run: RunConfig,
    assumed: Assumed | None = None,
    num_samples: int = NUM_SAMPLES,
    pretrained: MateyConfig | None = None,
) -> Workload:
    """Count the tokens of a run, perhaps from a pretrained model, on windows of its data or, with ``assumed``, on others.

    Raises:
        ConfigError: the run does not fit the data or the assumed grids, or names no fields although there is no data.
        DataError: data cannot be opened.
    """
    if assumed is None:
        return Workload(*draw_samples(run, num_samples, pretrained))
    return Workload(*make_samples(run, assumed, num_samples, pretrained))


RANKS_LOOKED_AT = 8
"""Largest number of ranks of a sequence group, far apart, whose parts are counted; on a large grid each takes seconds."""


@dataclass(frozen=True)
class Part:
    """The part of a micro-batch that one rank holds, and the number of tokens that come to it from other ranks.

    Attributes:
        cuts: cells of each batch.
        layout: the layout of all tokens.
        in_boxes: ``(k,)``, the tokens in its boxes.
        entering: number of tokens of its even share that lie in other ranks' boxes.
        near: number of tokens around those of its share.
        leaving: number of tokens that it needs for the cells of its boxes.
    """

    cuts: tuple[Cut, ...]
    layout: TokenLayout
    in_boxes: Tensor
    entering: int
    near: int
    leaving: int

    @property
    def num_samples(self) -> int:
        """Number of samples of its box in the first batch."""
        samples = self.cuts[0].box.samples
        return samples.stop - samples.start


def ranks_looked_at(ways: int) -> range:
    """Return the ranks of a sequence group whose parts are counted, at most `RANKS_LOOKED_AT`."""
    return range(0, ways, -(-ways // RANKS_LOOKED_AT))


@cache
def parts_of(workload: Workload, samples: tuple[Sample, ...], ways: int) -> list[Part]:
    """Return the parts of a micro-batch that `ranks_looked_at` hold; samples of a system and a size are one batch."""
    config, batches = workload.config, dict[object, list[Sample]]()
    for sample in samples:
        batches.setdefault((sample.system, sample.window, sample.num_fields), []).append(sample)
    layout = joined([stacked([s.layout for s in each]) for each in batches.values()], [*map(len, batches.values())])
    abouts, found = [one_batch(each[0], len(each)) for each in batches.values()], []
    frames = [
        Frames(about.number, about.window, about.periodic, cover(about.window, config.patches[0])[1:])
        for about in abouts
    ]
    places, own = TokenPlaces(layout, frames, config.patches), shares(layout.num_tokens, ways)
    divided = [Cut.of_rank(about, config, 0, ways).decomposition for about in abouts]
    box_of = places.in_coarsest([each.rank_of_coarsest() for each in divided])
    mixed = neighbours_of(layout, frames, config.patches) if config.mixes_neighbours and ways > 1 else None
    for rank in ranks_looked_at(ways):
        cuts = tuple(Cut.of_rank(about, config, rank, ways) for about in abouts)
        share = torch.arange(own[rank].start, own[rank].stop)
        needed = in_boxes = (box_of == rank).nonzero(as_tuple=True)[0]
        needed = places.given_to(cuts, reach_of(config)) if config.has_cells else needed[layout.is_last[needed]]
        seen = share if mixed is None else mixed.seen_by(share)[1]
        around, leaving = (
            int(((each < own[rank].start) | (each >= own[rank].stop)).sum()) * config.has_tokens
            for each in (seen, needed)
        )
        entering = int((box_of[share] != rank).sum()) * config.has_tokens
        found.append(Part(cuts, layout, in_boxes, entering, around, leaving))
    return found


def num_cells(spans: Sequence[Span]) -> int:
    """Return the number of cells in some spans along ``z, y, x``."""
    return math.prod(span.cells.stop - span.cells.start for span in spans)
