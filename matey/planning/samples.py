"""Samples for a plan: drawn from a run's data or, if the data does not exist yet, made from assumptions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from matey.config import ConfigError, RunConfig
from matey.data.reading import read_parts, samples_of_windows, unpacked_cells
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window, alike
from matey.model.configuration import MateyConfig, model_config
from matey.nested import num_bytes_of
from matey.planning.at_hand import check_named
from matey.samples import Box, Samples
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.patches import cover, patch_grid
from matey.tokens.refinement import check_window, split_by
from matey.train.network import boxes_at_once, check_fit, layout_of_windows, with_vocabulary
from matey.train.run_data import open_data

WindowSize = tuple[int, int, int, int]
"""Size ``t, z, y, x`` of a sample in frames and cells."""

Chunk = tuple[int, int, int] | None
"""Shape ``z, y, x`` of the compressed chunks of a sample's file; None where any part can be read, or nothing is known."""

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
        chunk: chunks of the sample's file.
        periodic: whether the domain wraps around along ``z, y, x``.
    """

    system: str
    window: WindowSize
    num_fields: int
    layout: TokenLayout
    num_given: int = 0
    given_frames: int = 0
    chunk: Chunk = None
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
) -> tuple[MateyConfig, tuple[Sample, ...], float]:
    """Return a run's network, samples drawn from its data as in training, and the rate of reading in bytes per second.

    No field is held whole: the rate is that of a box of each sample, and tokens are counted in boxes. Only a criterion of a
    package, which may look beyond a patch, is given whole windows.
    """
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
    rate = _reading_rate(sets, windows, num_frames, config)
    in_order = [window for group in alike(sets, windows) for window in group]
    return config, _spread([_counted(sets, window, num_frames, config) for window in in_order]), rate


def _least(num_sets: int) -> int:
    """Return the number of samples that are looked at however large they are, so that each data set has some."""
    return 1 if num_sets == 1 else 4 * num_sets


def _reading_rate(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, config: MateyConfig
) -> float:
    """Return the bytes per second at which a box of each window is read, history and target; chunks count whole."""
    times: list[float] = []  # as many cells are unpacked as are read

    def first_box(samples: Sequence[Samples]) -> list[list[Box]]:
        (about,) = samples
        box = next(boxes_at_once(about, config.patches[0]))
        cells = math.prod(side.stop - side.start for side in box[1])
        times.append(max(unpacked_cells([box], about.chunk, about.window[1:]) / cells, 1))
        return [[box]]

    start = time.perf_counter()
    read = [num_bytes_of(read_parts(sets, [window], num_frames, first_box)) for window in windows]
    num_bytes = sum(each * unpacked for each, unpacked in zip(read, times, strict=True))
    return num_bytes / (time.perf_counter() - start)


def _counted(sets: Sequence[TrajectorySet], window: Window, num_frames: int, config: MateyConfig) -> Sample:
    """Return a window of the data with the layout of its tokens."""
    source, about = sets[window.set_index], samples_of_windows(sets, [window], num_frames)
    layout = layout_of_windows(sets, [window], num_frames, config)
    given_frames = num_frames + window.lead if source.varying else bool(source.given)
    given = len(source.given), int(given_frames)
    return Sample(about.system, about.window, len(about.fields), layout, *given, about.chunk, about.periodic)


def make_samples(
    run: RunConfig, assumed: Assumed, num_samples: int, pretrained: MateyConfig | None = None
) -> tuple[MateyConfig, tuple[Sample, ...]]:
    """Return a run's network, and samples on the assumed grids with random refinement; data sets are drawn by weight."""
    check_named(run)
    network = config = model_config(run, pretrained)
    if config.tokens.rule == "threshold":
        config = _with_share(config, assumed.refined)
    last, count = len(assumed.grids) - 1, len(run.data.sets)
    of_sets = list(zip(run.data.sets, (assumed.grids[min(number, last)] for number in range(count)), strict=True))
    views = [(1, 1.0), *((view.cells, view.weight) for view in run.data.coarsened)]
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


def _with_share(config: MateyConfig, share: float) -> MateyConfig:
    """Return the configuration that splits a share of all patches, independent of the fields."""
    tokens = config.tokens.model_copy(update={"rule": "fraction", "refine": share})
    return MateyConfig.from_dict(config.to_dict() | {"tokens": tokens})
