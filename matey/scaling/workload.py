"""What a step works on: the tokens of samples, and which of them attend to each other.

Samples are those that training would draw or, where the data is not at hand, grids of which a given share is split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import glob

import numpy as np
import torch
from torch import Tensor

from matey.config import ConfigError, RunConfig
from matey.data.windows import read_windows
from matey.fields import FieldBatch
from matey.model.blocks import scheme_keys
from matey.model.configuration import MateyConfig
from matey.parallel.sequence import heads_plan_moves, plan_tokens
from matey.parallel.topology import Topology
from matey.scaling.operations import Operations, count_operations
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import cover, patch_grid
from matey.tokens.segments import segment
from matey.tokens.tokenize import tokenize
from matey.train.network import check_fit, model_config, with_vocabulary
from matey.train.run_data import open_data

NUM_SAMPLES = 32  # windows that tokens are counted on
DRAWS = 10_000  # samples that are dealt out to groups to see how uneven their work is


@dataclass(frozen=True)
class Assumed:
    """What is taken of data that is not at hand.

    Attributes:
        grids: cells ``z, y, x`` of each data set in the run's order; the last one counts for all that follow.
        refined: share of the patches of each level that is split.
        num_fields: fields of a system.
    """

    grids: tuple[tuple[int, int, int], ...] = ((1, 128, 128),)
    refined: float = 0.2
    num_fields: int = 4


@dataclass(frozen=True)
class Sample:
    """One sample as the network sees it.

    Attributes:
        system: name of the PDE system; of data that is not at hand, its path.
        window: ``t, z, y, x``.
        num_fields: of its system.
        layout: of its tokens.
    """

    system: str
    window: tuple[int, int, int, int]
    num_fields: int
    layout: TokenLayout

    @property
    def num_tokens(self) -> int:
        """Number of its tokens."""
        return self.layout.num_tokens


@dataclass(frozen=True)
class SequencePlan:
    """How an attention crosses the ranks of a sequence group, see `matey.parallel.sequence`.

    Attributes:
        by_tokens: whether whole segments move to one rank each; otherwise tokens are exchanged for heads.
        num_moved: values that leave a rank in a forward pass over the embedding width, summed over the group.
    """

    by_tokens: bool
    num_moved: float


def _plan(key: Tensor, topology: Topology) -> SequencePlan:
    tokens, heads = plan_tokens(key, topology), heads_plan_moves(len(key), topology)
    if tokens is not None and tokens.num_moved < heads:
        return SequencePlan(True, tokens.num_moved)
    return SequencePlan(False, heads)


@dataclass(frozen=True)
class Workload:
    """Samples in the proportions of training, and the network that works on them.

    Attributes:
        config: of the model.
        samples: drawn, or assumed.
        measured: whether the samples were drawn from the data.
    """

    config: MateyConfig
    samples: tuple[Sample, ...]
    measured: bool

    @cached_property
    def operations(self) -> Operations:
        """Operations and parameters of the network."""
        return count_operations(self.config)

    @property
    def num_attentions(self) -> int:
        """Attentions of a block."""
        return len(scheme_keys(self.config.scheme, self.config.patches))

    @property
    def num_tokens(self) -> float:
        """Mean tokens per sample."""
        return sum(sample.num_tokens for sample in self.samples) / len(self.samples)

    @property
    def num_uniform_tokens(self) -> float:
        """Mean tokens per sample, were it cut into the finest patches throughout."""
        finest = self.config.patches[-1]
        counts = [math.prod(patch_grid(cover(sample.window, finest), finest)) for sample in self.samples]
        return sum(counts) / len(counts)

    def micro_batch(self, size: int, first: int = 0) -> list[Sample]:
        """Return a micro-batch of so many samples, from the sample of number ``first`` on, and from the start again."""
        return [self.samples[(first + number) % len(self.samples)] for number in range(size)]

    @property
    def most_tokens(self) -> int:
        """Tokens of the largest sample: a long run meets micro-batches of nothing else."""
        return max(sample.num_tokens for sample in self.samples)

    def imbalance(self, num_groups: int, num_samples: int) -> float:
        """Return the operations of the group with most to do in a step over the mean of all, on average over steps.

        Args:
            num_groups: sequence groups, each with samples of its own.
            num_samples: of a group in a step.
        """
        if num_groups == 1:
            return 1.0
        costs = np.add(self._block_costs, self._outside_costs)
        num_steps = max(1, DRAWS // (num_groups * num_samples))
        drawn = np.random.default_rng(0).choice(costs, (num_steps, num_groups, num_samples))
        of_groups = drawn.mean(axis=2)
        return float((of_groups.max(axis=1) / of_groups.mean(axis=1)).mean())

    def sequence_plans(self, num_samples: int, topology: Topology) -> list[SequencePlan]:
        """Return how each attention of a block crosses the ranks that share a micro-batch of so many samples."""
        place = num_samples, topology.sequence_parallel_size
        if place not in self._plans:
            keys = self.keys(self.micro_batch(num_samples))
            self._plans[place] = [_plan(key, replace(topology, num_ranks=place[1], rank=0)) for key in keys]
        return self._plans[place]

    @cached_property
    def _plans(self) -> dict[tuple[int, int], list[SequencePlan]]:
        return {}

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
        """Mean operations of a sample's forward pass in matrix products, those of attention included."""
        return self.block_operations + self.outside_operations

    @property
    def block_operations(self) -> float:
        """The part of `forward_operations` in the transformer blocks."""
        return sum(self._block_costs) / len(self.samples)

    @property
    def outside_operations(self) -> float:
        """The other part: embedding, positions, decoding."""
        return sum(self._outside_costs) / len(self.samples)

    @cached_property
    def most_outside_values(self) -> int:
        """Values that embedding and decoding keep for the backward pass, of the sample with most of them."""
        keeps = self.operations.embed_keeps, self.operations.decode_keeps
        return max(_outside(sample, *keeps) for sample in self.samples)

    @cached_property
    def _block_costs(self) -> list[int]:
        costs = []
        for sample in self.samples:
            runs = (run for key in self.keys([sample]) for run in segment(key).runs)
            products = sum(count * queries * keys for count, queries, keys in runs)
            attention = 4 * self.config.width * self.config.num_blocks * products
            costs.append(attention + sample.num_tokens * self.operations.per_token)
        return costs

    @cached_property
    def _outside_costs(self) -> list[int]:
        embed, decode, per_token = self.operations.embed, self.operations.decode, self.operations.outside_per_token
        return [_outside(sample, embed, decode) + sample.num_tokens * per_token for sample in self.samples]


def _outside(sample: Sample, embed: Sequence[tuple[int, int]], decode: Sequence[tuple[int, int]]) -> int:
    """Add up over the levels what a token costs for each of its fields, and beyond."""
    total = 0
    for level, of_token in enumerate(zip(embed, decode, strict=True)):
        here = sample.layout.level == level
        counts = int(here.sum()), int((here & sample.layout.is_last).sum())
        for count, (of_field, rest) in zip(counts, of_token, strict=True):
            total += count * (of_field * sample.num_fields + rest)
    return total


def load_workload(run: RunConfig, assumed: Assumed | None = None, num_samples: int = NUM_SAMPLES) -> Workload:
    """Count the tokens of a run on windows of its data or, with ``assumed``, on what is taken in its place.

    Raises:
        ConfigError: the run does not fit the data or the assumed grids, or names no fields where there is no data.
        DataError: data cannot be opened.
    """
    if assumed is not None:
        return _assumed_workload(run, assumed, num_samples)
    data = open_data(run)
    run = with_vocabulary(run, data.all_sets)
    config = model_config(run)
    check_fit(config, data.all_sets)
    batches = read_windows(data.sets, data.mixture.global_batch(0, num_samples), run.data.history)
    samples = [sample for batch in batches for sample in samples_of(batch, config)]
    return Workload(config, _spread(samples), measured=True)


def is_at_hand(run: RunConfig) -> bool:
    """Whether there is a file or folder for each of the run's data sets."""
    return all(glob(data.path) for data in run.data.sets)


def _spread(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Mix samples that came system by system, so that samples in a row are like a micro-batch of training."""
    order = np.random.default_rng(0).permutation(len(samples))
    return tuple(samples[number] for number in order)


def samples_of(batch: FieldBatch, config: MateyConfig, num_fields: int | None = None) -> list[Sample]:
    """Tokenize every sample of a batch by itself; ``num_fields`` where the batch stands for one with other fields."""
    samples = []
    for number in range(batch.num_samples):
        part = slice(number, number + 1)
        single = FieldBatch(batch.system, batch.fields, batch.history[part], batch.lead_time[part])
        layout = tokenize([single], config.patches, config.refinement).layout
        window = (batch.num_frames, *batch.grid)
        samples.append(Sample(batch.system, window, num_fields or len(batch.fields), layout))
    return samples


def _assumed_workload(run: RunConfig, assumed: Assumed, num_samples: int) -> Workload:
    if run.model.fields is None:
        raise ConfigError(
            "The fields of a run whose data is not at hand must be named: set model.fields, for instance "
            "--set 'model.fields=[density, pressure]'."
        )
    config = model_config(run)
    if config.refine_rule == "threshold":
        config = _with_share(config, assumed.refined)
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor([data.weight for data in run.data.sets])
    points = (torch.arange(num_samples) + 0.5) / num_samples * weights.sum()
    samples = []
    for index in torch.searchsorted(weights.cumsum(0), points).tolist():
        grid = assumed.grids[min(index, len(assumed.grids) - 1)]
        noise = torch.rand(1, run.data.history, 1, *grid, generator=random)
        batch = FieldBatch(run.data.sets[index].path, ("noise",), noise, torch.ones(1, dtype=torch.long))
        try:
            samples += samples_of(batch, config, assumed.num_fields)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return Workload(config, _spread(samples), measured=False)


def _with_share(config: MateyConfig, share: float) -> MateyConfig:
    """Return the configuration with a share of all patches split, whatever the fields are."""
    return MateyConfig.from_dict(config.to_dict() | {"refine_rule": "fraction", "refine_amount": share})
