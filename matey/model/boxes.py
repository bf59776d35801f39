"""Prepares what a rank computes with: its box of the cells of every batch, its share of the tokens, and the routes between.

    cells, with halo --> features --> tokens in the box --.                    .--> tokens in and around the box --> change
                                                          | enter              ^ leave
                                                          '--> even share of the tokens, and
                                                               those around them: neighbours, attention

All of it is found on the host ahead of the step, by integers that are the same on every rank. Each rank has read the cells of
its box and of the halo around it; only a few numbers for each coarsest patch are gathered, for statistics and for refinement.
One process is the case of a box that is the whole domain, where every route leads a token to itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.block_plan import BlockPlan
from matey.model.blocks import keys_of
from matey.model.cells import Reach, Sides
from matey.model.configuration import MateyConfig
from matey.model.cycle import grain_of, on_cells
from matey.model.given import Given, Rows, given_of, in_history, parameters_of, rows_of, with_given, with_known
from matey.model.local import local_inputs
from matey.model.route import CellRoute, Route
from matey.model.scales import told
from matey.model.sequence_group import Exchange, RankGroup
from matey.nested import with_tensors
from matey.samples import BatchPart, Samples
from matey.samples import Box as BoxToRead
from matey.tokens.by_brick import criteria_by_brick, refined_from, statistics_from, sums_by_brick, width_of_criteria
from matey.tokens.decomposition import Box, Decomposition, Span
from matey.tokens.layout import TokenLayout
from matey.tokens.neighbours import Neighbours, neighbours_of
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, extend, parts_along
from matey.tokens.tiles import Frames
from matey.tokens.tokenize import TokenBatch, check_samples, lay_out, tokenize


@dataclass(frozen=True)
class HeldCells:
    """The place of a rank's box in a batch.

    Attributes:
        decomposition: the division of the batch among ranks.
        box: the box.
    """

    decomposition: Decomposition
    box: Box

    @property
    def frames(self) -> Frames:
        """The frames of the batch."""
        return self.decomposition.frames

    @property
    def sample(self) -> slice:
        """The samples of the box."""
        return self.box.samples

    @property
    def of_samples(self) -> tuple[int, ...]:
        """Whether the box holds cells of each sample of the batch: 1 or 0."""
        held = self.box.samples
        return tuple(int(held.start <= number < held.stop) for number in range(self.frames.num_samples))

    def put(self, values: Tensor) -> Tensor:
        """Put the box's values ``(k, f, z, y, x)`` where they belong in ``(b, f, z, y, x)``, zero elsewhere."""
        whole = values.new_zeros(self.frames.num_samples, values.shape[1], *self.frames.window[1:])
        if len(values):
            whole[self.box.samples, :, *self.box.cells] = values
        return whole

    def around(self, halo: Sequence[int], ranks: RankGroup) -> CellRoute:
        """Plan the route of the cells in the box and in a halo around it, ``z, y, x`` cells wide on all sides.

        Beyond the domain, the cells of its other side follow where it is periodic, else those of its edge.
        """

        def seen(side: slice, far: int, length: int, wraps: bool) -> Tensor:
            cells = torch.arange(side.start - far, side.stop + far)
            return cells % length if wraps else cells.clamp(0, length - 1)

        boxes, frames = [self.decomposition.box(rank) for rank in range(ranks.size)], self.frames
        axes = [zip(box.cells, halo, frames.window[1:], frames.periodic, strict=True) for box in boxes]
        return CellRoute.planned(boxes, [[seen(*axis) for axis in of_box] for of_box in axes], ranks.place)


@dataclass(frozen=True)
class Held:
    """The part of one batch that a rank holds.

    Attributes:
        cells: the place of its box.
        sides: the sides of the cells that it looks at.
        crop: the cells of its box among those that are left after all layers, along ``z, y, x``.
        own_features: the cells of its box among those whose features are computed.
        history: ``(k, t, f, z, y, x)``, the normalised history of the box, continued to whole coarsest patches.
        inputs: ``(k, 2, f, z, y, x)``, the last frame and the last change in the box and around it.
        base: ``(k, f, z, y, x)``, the last frame of the box in physical units.
        target: ``(k, f, z, y, x)``, the target of the box in physical units, if there is one.
        grains: ``(l, k, Z, Y, X)``, the number of each grain that is interpolated to features, in the list of all that leaves
            give; several are added up where parents keep their tokens.
        first_grain: first grain along ``z, y, x``, counted from the domain's.
        interpolated: the cells ``z, y, x`` to which grains are interpolated, counted from the domain's first.
        chosen: numbers of the interpolated cells along ``z, y, x`` whose features are computed; None for all.
    """

    cells: HeldCells
    sides: Sides
    crop: tuple[slice, ...]
    own_features: tuple[slice, ...]
    history: Tensor
    inputs: Tensor
    base: Tensor
    target: Tensor | None
    grains: Tensor
    first_grain: tuple[int, ...]
    interpolated: tuple[slice, ...]
    chosen: tuple[Tensor | None, ...]

    def of_own(self, features: Tensor) -> Tensor:
        """Return the features of the box's own cells, from all whose features are computed ``(k, c, z, y, x)``."""
        z, y, x = self.own_features
        return features[..., z, y, x]

    def of_box(self, changes: Tensor) -> Tensor:
        """Return the changes of the box's own cells, from all that are left after the layers ``(k, f, z, y, x)``."""
        z, y, x = self.crop
        return changes[..., z, y, x]

    def of_grains(self, grains: Tensor, grain: Patch) -> Tensor:
        """Return what grains ``(g, c)`` give to the cells whose features are computed, ``(k, c, z, y, x)``."""
        values = on_cells(grains, self.grains, self.first_grain, grain, self.interpolated)
        for axis, index in enumerate(self.chosen, start=2):
            values = values if index is None else values.index_select(axis, index)
        return values


@dataclass(frozen=True)
class BoxTokens:
    """The tokens in a rank's boxes, and the cells that they take features from and give them to.

    Attributes:
        layout: the layout of the tokens.
        rows: rows of the tokens of each level and batch in ``patchify`` of the box's history.
        order: place of each token of the boxes in the list that is embedded level by level.
        taking: rows in ``patchify`` of the box's features of those of the last frame, for each level and batch.
        taken: place of each token of the boxes in the list that takes features; beyond its end for earlier frames.
        giving: places ``(m,)`` of the tokens of each level that give features, among those needed in and around the boxes.
    """

    layout: TokenLayout
    rows: tuple[tuple[Tensor, ...], ...]
    order: Tensor
    taking: tuple[tuple[Tensor, ...], ...]
    taken: Tensor
    giving: tuple[Tensor, ...]


@dataclass(frozen=True)
class PreparedBoxes:
    """A micro-batch that a rank can compute with, without inspecting a value on the host.

    Attributes:
        samples: description of the samples of each batch.
        rows: the rows of each batch's fields in the vocabulary.
        normalisations: the statistics of each batch.
        scales: ``(b, f, 3)``, scales of each batch within their ranges: those of the history's fields, then of given fields.
        parameters: ``(b, p)``, the parameters of the samples, batch after batch; None if the model takes none.
        held: the part of each batch that the rank holds.
        tokens: the tokens in its boxes.
        enter: the route from the boxes to the even share; None where they are the same.
        layout: the tokens of the even share.
        near: the route of tokens to the ranks whose tokens they are neighbours of.
        neighbours: the nodes around the tokens of the even share.
        in_blocks: the same for tokens in the order of a block's last attention.
        leave: the route from the even share to the boxes and around them.
        block_plan: the plan of every block.
        num_of_batches: number of tokens of the even share of each batch.
        halos: the routes of cells in and around the boxes, for a loss that looks at neighbours; none if it is to plan them.
    """

    samples: tuple[Samples, ...]
    rows: tuple[Rows, ...]
    normalisations: tuple[Normalisation, ...]
    scales: tuple[Tensor, ...]
    parameters: Tensor | None
    held: tuple[Held, ...]
    tokens: BoxTokens
    enter: Route | None
    layout: TokenLayout
    near: Route | None
    neighbours: Neighbours
    in_blocks: Neighbours
    leave: Route | None
    block_plan: BlockPlan
    num_of_batches: tuple[int, ...]
    halos: tuple[CellRoute, ...] = ()

    def to(self, device: torch.device | str) -> PreparedBoxes:
        """Return the micro-batch with its tensors on ``device``."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=not str(device).startswith("cpu")))

    @property
    def seen(self) -> tuple[Held, ...]:
        """The part of each batch that the rank holds."""
        return self.held

    def with_halos(self, halos: Sequence[Sequence[int]], ranks: RankGroup) -> PreparedBoxes:
        """Return the micro-batch with a plan for a loss that looks at cells ``z, y, x`` around a cell, for each batch."""
        routes = (held.cells.around(halo, ranks) for held, halo in zip(self.held, halos, strict=True))
        return replace(self, halos=tuple(routes))

    def at_lead(self, lead: int) -> PreparedBoxes:
        """Return the micro-batch for a prediction ``lead`` snapshots ahead; given fields must not change in time."""
        later = (replace(about, lead_time=torch.full_like(about.lead_time, lead)) for about in self.samples)
        return replace(self, samples=tuple(later))


@dataclass(frozen=True)
class _Wide:
    """The values of one batch in a rank's box and around it.

    Attributes:
        history: ``(k, t, f, z, y, x)``, the past frames in physical units.
        target: ``(k, f, z, y, x)``, or None.
        given: ``(k, t, f, z, y, x)``, given fields in as many frames or in one, or None.
    """

    history: Tensor
    target: Tensor | None
    given: Tensor | None


@dataclass(frozen=True)
class Cut:
    """The division of one batch among ranks, and the part of one of them.

    Attributes:
        decomposition: the division.
        box: the rank's box.
        spans: the cells that it looks at along each axis.
    """

    decomposition: Decomposition
    box: Box
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, about: Samples, config: MateyConfig, ranks: RankGroup) -> Cut:
        """Return the part of a batch that this rank holds."""
        return cls.of_rank(about, config, ranks.place, ranks.size)

    @classmethod
    def of_rank(cls, about: Samples, config: MateyConfig, rank: int, num_ranks: int) -> Cut:
        """Return the part of a batch that a rank holds."""
        brick, reach = config.patches[0], reach_of(config).inputs
        covered = patch_covers(about, brick)
        frames = Frames(about.number, about.window, about.periodic, covered)
        decomposition = Decomposition.among(num_ranks, frames, brick, reach)
        box = decomposition.box(rank)
        axes = zip(box.cells, about.window[1:], about.periodic, reach, strict=True)
        return cls(decomposition, box, tuple(Span.around(*axis) for axis in axes))

    def to_read(self) -> list[BoxToRead]:
        """Return what the rank reads: for each of its samples, the cells that it looks at."""
        z, y, x = (
            slice(span.cells.start % span.length, span.cells.start % span.length + span.cells.stop - span.cells.start)
            for span in self.spans
        )
        return [(sample, (z, y, x)) for sample in range(self.box.samples.start, self.box.samples.stop)]

    def wide_of(self, batch: FieldBatch, given: Tensor | None) -> _Wide:
        """Cut the rank's values out of a batch."""
        index = [span.index().to(batch.history.device) for span in self.spans]

        def cut(values: Tensor) -> Tensor:
            values = values[self.box.samples]
            for axis, cells, span in zip((-3, -2, -1), index, self.spans, strict=True):
                if len(cells) != span.length:
                    values = values.index_select(axis, cells)
            return values

        target = None if batch.target is None else cut(batch.target)
        return _Wide(cut(batch.history), target, None if given is None else cut(given))

    @property
    def own_cells(self) -> tuple[slice, ...]:
        """The cells of the box among those that the rank looks at, along ``z, y, x``."""
        return _inside(self.spans, self.box.cells)

    def own(self, values: Tensor) -> Tensor:
        """Return the values of the box from those of all cells that the rank looks at, ``(..., z, y, x)``."""
        z, y, x = self.own_cells
        return values[..., z, y, x]


@dataclass(frozen=True)
class BoxShare:
    """Says which cells of a micro-batch one rank reads: its box of each batch and the halo around it.

    Attributes:
        config: the configuration of the model.
        rank: number of the rank among those that share the samples.
        num_ranks: number of ranks that share the samples.
    """

    config: MateyConfig
    rank: int
    num_ranks: int

    def __call__(self, samples: Sequence[Samples]) -> list[list[BoxToRead]]:
        """Return the boxes of each batch."""
        return [Cut.of_rank(about, self.config, self.rank, self.num_ranks).to_read() for about in samples]


def reach_of(config: MateyConfig) -> Reach:
    """Return how far the layers on the cells look."""
    return Reach.along(config.patches, *config.layers)


def patch_covers(about: Samples, brick: Patch) -> tuple[int, int, int]:
    """Return the size ``z, y, x`` that the coarsest patches cover."""
    z, y, x = (-(-size // cells) * cells for size, cells in zip(about.window[1:], brick[1:], strict=True))
    return z, y, x


@torch.no_grad()
def prepare_boxes(
    batches: Sequence[FieldBatch], config: MateyConfig, ranks: RankGroup, token_batch: TokenBatch | None = None
) -> PreparedBoxes:
    """Prepare a micro-batch that every rank has whole, see `matey.model.prepare.prepare`."""
    token_batch = token_batch or tokenize(batches, config.patches, config.refinement)
    samples, given = [batch.samples for batch in batches], [given_of(batch, config) for batch in batches]
    cuts = [Cut.of(about, config, ranks) for about in samples]
    wides = [
        cut.wide_of(batch, None if of_batch is None else of_batch.values)
        for cut, batch, of_batch in zip(cuts, batches, given, strict=True)
    ]
    statistics = [None if each is None else each.normalisation for each in given]
    return _prepared(samples, token_batch, cuts, wides, statistics, config, ranks)


@torch.no_grad()
def prepare_box_parts(
    parts: list[BatchPart], config: MateyConfig, ranks: RankGroup, exchange: Exchange
) -> PreparedBoxes:
    """Prepare a micro-batch of which each rank has read what `BoxShare` says; all ranks of the group call together.

    The list is emptied, so that values do not lie in memory twice.
    """
    parts[:] = [with_known(part, config) for part in parts]
    samples = [part.samples for part in parts]
    check_samples(samples, config.patches, config.refinement)
    cuts = [Cut.of(about, config, ranks) for about in samples]
    wides = [_assembled(part, cut) for part, cut in zip(parts, cuts, strict=True)]
    num_given = [part.num_given for part in parts]
    parts.clear()
    gather = _Gather([cut.decomposition for cut in cuts], ranks, exchange)
    histories = [cut.own(wide.history) for cut, wide in zip(cuts, wides, strict=True)]
    normalisations = gather.statistics(samples, histories)
    statistics = _statistics_of_given(samples, cuts, wides, num_given, ranks, exchange)
    refined: list[list[Tensor]] = [[] for _ in samples]
    if len(config.patches) > 1:
        refined = gather.refinement(samples, histories, normalisations, config)
    token_batch = lay_out(samples, normalisations, refined, config.patches, config.refinement)
    return _prepared(samples, token_batch, cuts, wides, statistics, config, ranks)


def _statistics_of_given(
    samples: Sequence[Samples],
    cuts: Sequence[Cut],
    wides: Sequence[_Wide],
    num_given: Sequence[int],
    ranks: RankGroup,
    exchange: Exchange,
) -> list[Normalisation | None]:
    """Return the statistics of each batch's given fields, None where there are none."""
    found: list[Normalisation | None] = [None] * len(samples)
    having = [number for number, count in enumerate(num_given) if count]
    if not having:
        return found
    about = [replace(samples[at], window=(num_given[at], *samples[at].window[1:])) for at in having]
    values = [cuts[at].own(given) for at in having if (given := wides[at].given) is not None]
    gather = _Gather([cuts[at].decomposition for at in having], ranks, exchange)
    for at, of_given in zip(having, gather.statistics(about, values), strict=True):
        found[at] = in_history(of_given, num_given[at], samples[at].window[0])
    return found


def _assembled(part: BatchPart, cut: Cut) -> _Wide:
    """Bring the samples that a rank has read together."""
    samples = range(cut.box.samples.start, cut.box.samples.stop)
    assert [piece.sample for piece in part.pieces] == list(samples), "a rank reads one piece of each of its samples"
    about, sizes = part.samples, [span.cells.stop - span.cells.start for span in cut.spans]
    if not part.pieces:
        empty = torch.empty(0, about.window[0], len(about.fields), *sizes, dtype=about.dtype)
        given = torch.empty(0, part.num_given, len(about.given_fields), *sizes, dtype=about.dtype)
        return _Wide(empty, empty[:, 0] if part.has_target else None, given if part.num_given else None)

    def together(name: str) -> Tensor | None:
        values = [getattr(piece, name) for piece in part.pieces]
        return None if values[0] is None else torch.stack(values)

    history = together("history")
    assert history is not None
    return _Wide(history, together("target") if part.has_target else None, together("given"))


@dataclass(frozen=True)
class _Gather:
    """Gathers numbers of each coarsest patch from the ranks that hold them, in the order of the patches."""

    decompositions: Sequence[Decomposition]
    ranks: RankGroup
    exchange: Exchange

    def _of_all(self, rows: Sequence[Tensor], widths: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
        """Return the rows ``(b Z Y X, w)`` of each batch from those of this rank's patches."""
        holders = [each.rank_of_bricks().flatten() for each in self.decompositions]
        counts = [torch.bincount(holder, minlength=self.ranks.size).tolist() for holder in holders]
        of_ranks = [sum(n[rank] * w for n, w in zip(counts, widths, strict=True)) for rank in range(self.ranks.size)]
        own = torch.cat([row.flatten().to(dtype) for row in rows])
        values, first = self.exchange.gather(own, of_ranks), 0
        found = [values.new_empty(len(holder), width) for holder, width in zip(holders, widths, strict=True)]
        for rank in range(self.ranks.size):
            for whole, holder, width in zip(found, holders, widths, strict=True):
                mine = (holder == rank).nonzero(as_tuple=True)[0]
                whole[mine] = values[first : first + len(mine) * width].view(len(mine), width)
                first += len(mine) * width
        return found

    def statistics(self, samples: Sequence[Samples], histories: Sequence[Tensor]) -> list[Normalisation]:
        """Return the statistics of each batch from the values of this rank's boxes."""
        brick, widths = self.decompositions[0].brick, [3 * history.shape[2] for history in histories]
        rows = [
            torch.cat([history.new_empty(0, width), *(sums_by_brick(one[None], brick) for one in history)])
            for history, width in zip(histories, widths, strict=True)
        ]
        found = self._of_all(rows, widths, samples[0].dtype)
        return [
            statistics_from(row, about, each.frames.grid_of(brick), brick)
            for row, about, each in zip(found, samples, self.decompositions, strict=True)
        ]

    def refinement(
        self,
        samples: Sequence[Samples],
        histories: Sequence[Tensor],
        normalisations: Sequence[Normalisation],
        config: MateyConfig,
    ) -> list[list[Tensor]]:
        """Decide which patches are split, by the criteria of all ranks' patches."""
        how, width = (config.patches, config.refinement), width_of_criteria(config.patches)
        rows = []
        for history, normalisation, each in zip(histories, normalisations, self.decompositions, strict=True):
            first = each.box(self.ranks.place).samples.start
            of_samples = [
                criteria_by_brick(one[None], normalisation.of([first + number]), *how)
                for number, one in enumerate(history)
            ]
            rows.append(torch.cat([history.new_empty(0, width), *of_samples]))
        found = self._of_all(rows, [width] * len(rows), samples[0].dtype)
        return [
            refined_from(row, about, each.frames.grid_of(config.patches[0]), *how)
            for row, about, each in zip(found, samples, self.decompositions, strict=True)
        ]


def _prepared(
    samples: Sequence[Samples],
    token_batch: TokenBatch,
    cuts: Sequence[Cut],
    wides: Sequence[_Wide],
    given: Sequence[Normalisation | None],
    config: MateyConfig,
    ranks: RankGroup,
) -> PreparedBoxes:
    layout, frames, patches = token_batch.layout, token_batch.frames, config.patches
    device, names = layout.row.device, config.parameters
    rows = tuple(rows_of(batch, config, device) for batch in samples)
    inputs = [with_given(*each) for each in zip(token_batch.normalisations, given, strict=True)]
    places = _Places(layout, frames, patches)
    num_tokens, me, everyone = layout.num_tokens, ranks.place, range(ranks.size)
    even = ranks.rank_of_tokens(num_tokens).to(device)
    shares = [(even == rank).nonzero(as_tuple=True)[0] for rank in everyone]
    boxes = [cut.decomposition.rank_of_bricks().to(device) for cut in cuts]
    box_of = places.in_bricks(boxes)
    needed = [
        places.given_to([Cut.of_rank(about, config, rank, ranks.size) for about in samples], reach_of(config))
        for rank in everyone
    ]
    neighbours = neighbours_of(layout, frames, patches)
    own = ranks.shard(num_tokens)
    near, mine = None, neighbours
    if ranks.size > 1:
        seen = [neighbours.seen_by(share) for share in shares]
        near, mine = Route.planned(even, [tokens for _, tokens in seen], me), seen[me][0]
    block_plan = ranks.plan_block(keys_of(layout, config.scheme, patches))
    enter = block_plan.enter
    return PreparedBoxes(
        samples=tuple(samples),
        rows=rows,
        normalisations=token_batch.normalisations,
        scales=told(inputs, [row.inputs for row in rows], config.fields, config.scales),
        parameters=torch.cat([parameters_of(batch, names, device) for batch in samples]) if names else None,
        held=tuple(
            _held(cut, wide, of_fields, of_given, numbers, config)
            for cut, wide, of_fields, of_given, numbers in zip(
                cuts,
                wides,
                token_batch.normalisations,
                given,
                places.grains(cuts, needed[me], reach_of(config)),
                strict=True,
            )
        ),
        tokens=places.of_boxes((box_of == me).nonzero(as_tuple=True)[0], cuts, needed[me]),
        enter=Route.planned(box_of, shares, me),
        layout=layout.select(own),
        near=near,
        neighbours=mine,
        in_blocks=mine if enter is None else mine.renumbered(enter.index, enter.inverse),
        leave=Route.planned(even, needed, me),
        block_plan=block_plan,
        num_of_batches=tuple(torch.bincount(layout.batch[own], minlength=len(frames)).tolist()),
    )


@dataclass(frozen=True)
class _Places:
    """The places of all tokens of a micro-batch."""

    layout: TokenLayout
    frames: Sequence[Frames]
    patches: Sequence[Patch]

    def _sample(self) -> Tensor:
        """Return the number of each token's sample in its batch, ``(n,)``."""
        first = self.layout.kinds.first_sample
        return self.layout.sample - first.index_select(0, self.layout.kind.int())

    def in_bricks(self, bricks: Sequence[Tensor]) -> Tensor:
        """Return a value of each token's coarsest patch, ``(n,)``, from those of each batch, ``(b, Z, Y, X)``."""
        layout = self.layout
        ratio = torch.tensor([parts_along(self.patches[0], patch) for patch in self.patches], device=layout.row.device)
        sample, place = self._sample(), layout.place // ratio[layout.level]
        found = torch.empty_like(sample)
        for number, values in enumerate(bricks):
            mine = (layout.batch == number).nonzero(as_tuple=True)[0]
            found[mine] = values[sample[mine], *place[mine].unbind(1)]
        return found

    def _last(self, level: int, batch: int) -> Tensor:
        """Return the token of the last frame of each patch of a level, ``(b, Z, Y, X)``; -1 where there is none."""
        layout, frames = self.layout, self.frames[batch]
        tokens = ((layout.batch == batch) & (layout.level == level) & layout.is_last).nonzero(as_tuple=True)[0]
        grid = frames.grid_of(self.patches[level])
        times = frames.window[0] // self.patches[level][0]
        found = torch.full((math.prod(grid),), -1, device=tokens.device)
        return found.index_copy(0, layout.row[tokens].long() // times, tokens).view(grid)

    def _grains_around(self, cut: Cut, batch: int, reach: Reach) -> tuple[list[int], list[tuple[Tensor, Tensor]]]:
        """Return the grains that a rank needs.

        Returns:
            The first grain along each axis; and for each level the tokens ``(b, Z, Y, X)`` that give the grains, -1 for none,
            and the grains' numbers in their leaves.
        """
        grain, first, along = grain_of(self.patches), [], []
        for span, size in zip(features_of(cut, reach), grain[1:], strict=True):
            cells = interpolated_cells(span, size)
            # Linear interpolation takes the grains whose middles lie around that of a cell.
            begin, end = ((2 * cell + 1 - size) // (2 * size) for cell in (cells.start, cells.stop - 1))
            places, held = torch.arange(begin, end + 2), -(-span.length // size)
            first.append(begin)
            goes_round = span.wraps and span.length % size == 0
            along.append(places % held if goes_round else places.clamp(0, held - 1))
        found = []
        for level, patch in enumerate(self.patches):
            tokens, sub = self._last(level, batch)[cut.box.samples], torch.zeros((), dtype=torch.long)
            for axis, (places, parts) in enumerate(zip(along, parts_along(patch, grain), strict=True), start=1):
                places = places.to(tokens.device)
                tokens = tokens.index_select(axis, places // parts)
                sub = sub.to(tokens.device)[..., None] * parts + places % parts
            found.append((tokens, sub))
        return first, found

    def given_to(self, cuts: Sequence[Cut], reach: Reach) -> Tensor:
        """Return the tokens ``(k,)``, ascending, whose features a rank needs in its boxes and around them."""
        of_levels = [level for batch, cut in enumerate(cuts) for level in self._grains_around(cut, batch, reach)[1]]
        found = torch.cat([tokens.flatten() for tokens, _ in of_levels]).unique()
        return found[found >= 0]

    def grains(self, cuts: Sequence[Cut], needed: Tensor, reach: Reach) -> list[tuple[list[int], Tensor]]:
        """Return for each batch the first grain, and the numbers of grains ``(l, b, Z, Y, X)``, see `Held`."""
        grain, level = grain_of(self.patches), self.layout.level[needed]
        start = torch.full((self.layout.num_tokens + 1,), 0, device=needed.device)
        count = 0
        for number, patch in enumerate(self.patches):
            mine, each = needed[level == number], math.prod(parts_along(patch, grain))
            start[mine] = count + each * torch.arange(len(mine), device=needed.device)
            count += each * len(mine)
        found = []
        for batch, cut in enumerate(cuts):
            first, of_levels = self._grains_around(cut, batch, reach)
            numbers = torch.stack([torch.where(tokens >= 0, start[tokens] + sub, count) for tokens, sub in of_levels])
            # Without parents each grain is of one leaf, whose number is smaller than that of none.
            keeps_parents = not bool(self.layout.is_leaf.all())
            found.append((first, numbers if keeps_parents else numbers.amin(0, keepdim=True)))
        return found

    def of_boxes(self, own: Tensor, cuts: Sequence[Cut], needed: Tensor) -> BoxTokens:
        """Return the tokens ``(k,)`` in a rank's boxes, see `BoxTokens`; ``needed`` are those in and around them."""
        layout = self.layout.select(own)
        sample, place, time, last = self._sample()[own], layout.place, layout.time, layout.is_last
        rows, taking, order, taken = [], [], [], []
        for level, patch in enumerate(self.patches):
            of_level, of_last = [], []
            for batch, cut in enumerate(cuts):
                mine = ((layout.batch == batch) & (layout.level == level)).nonzero(as_tuple=True)[0]
                row = sample[mine] - cut.box.samples.start
                for axis, (side, cells, brick) in enumerate(
                    zip(cut.box.cells, patch[1:], self.patches[0][1:], strict=True)
                ):
                    covered = -(-(side.stop - side.start) // brick) * brick
                    row = row * (covered // cells) + place[mine, axis] - side.start // cells
                at_end = last[mine].nonzero(as_tuple=True)[0]
                of_last.append(row[at_end])
                of_level.append(row * (self.frames[batch].window[0] // patch[0]) + time[mine])
                order.append(mine)
                taken.append(mine[at_end])
            rows.append(tuple(of_level))
            taking.append(tuple(of_last))
        takes = torch.cat(taken)
        place_of = torch.full((len(own),), len(takes), device=own.device)
        place_of[takes] = torch.arange(len(takes), device=own.device)
        level_of = self.layout.level[needed]
        return BoxTokens(
            layout=layout,
            rows=tuple(rows),
            order=torch.cat(order).argsort(),
            taking=tuple(taking),
            taken=place_of,
            giving=tuple((level_of == number).nonzero(as_tuple=True)[0] for number in range(len(self.patches))),
        )


def interpolated_cells(span: Span, size: int) -> slice:
    """Return the cells along an axis to which grains are interpolated.

    Where grains do not divide a periodic axis, they are not interpolated across its ends, but on the whole axis.
    """
    goes_round = span.cells.start < 0 or span.cells.stop > span.length
    return slice(0, span.length) if goes_round and span.length % size else span.cells


def features_of(cut: Cut, reach: Reach) -> list[Span]:
    """Return the cells along each axis whose features a rank computes."""
    lost = [all_ - kept for all_, kept in zip(reach.inputs, reach.features, strict=True)]
    return [span.within(far) for span, far in zip(cut.spans, lost, strict=True)]


def _held(
    cut: Cut,
    wide: _Wide,
    normalisation: Normalisation,
    given: Normalisation | None,
    grains: tuple[list[int], Tensor],
    config: MateyConfig,
) -> Held:
    """Return what a rank holds of one batch."""
    samples, reach, box = cut.box.samples, reach_of(config), cut.box.cells
    normalised, of_samples = normalisation.of(samples).apply(wide.history), normalisation.of(samples)
    if given is not None and wide.given is not None:
        normalised = Given(wide.given, given.of(samples)).beside(normalised)
        of_samples = with_given(of_samples, given.of(samples))
    own = cut.own(normalised)
    covered = [-(-size // cells) * cells for size, cells in zip(own.shape[-3:], config.patches[0][1:], strict=True)]
    features, left = (
        features_of(cut, reach),
        [span.within(far) for span, far in zip(cut.spans, reach.inputs, strict=True)],
    )
    (first, numbers), grain = grains, grain_of(config.patches)
    return Held(
        cells=HeldCells(cut.decomposition, cut.box),
        sides=Sides(tuple(span.inside for span in cut.spans), tuple(span.wraps for span in cut.spans)),
        crop=_inside(left, box),
        own_features=_inside(features, box),
        history=extend(own, covered, (False, False, False)),
        inputs=local_inputs(normalised[:, -2:], of_samples.change / of_samples.std),
        base=cut.own(wide.history[:, -1]),
        target=None if wide.target is None else cut.own(wide.target),
        grains=numbers,
        first_grain=tuple(first),
        interpolated=tuple(interpolated_cells(span, size) for span, size in zip(features, grain[1:], strict=True)),
        chosen=tuple(
            span.index().to(numbers.device) if interpolated_cells(span, size) != span.cells else None
            for span, size in zip(features, grain[1:], strict=True)
        ),
    )


def _inside(spans: Sequence[Span], box: Sequence[slice]) -> tuple[slice, ...]:
    """Return where the sides of a box lie in spans."""
    return tuple(
        slice(side.start - span.cells.start, side.stop - span.cells.start)
        for span, side in zip(spans, box, strict=True)
    )
