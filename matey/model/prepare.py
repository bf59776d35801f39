"""Prepares what a rank computes with: its box of the cells of every batch, its share of the tokens, and the routes between.

    cells, with halo --> features --> tokens in the box --.                    .--> tokens in and around the box --> change
                                                          | enter              ^ leave
                                                          '--> even share of the tokens, and
                                                               those around them: neighbours, attention

All of it is found on the host ahead of the step, by integers that are the same on every rank: a host that asks a GPU for the
number of tokens waits for all work that the GPU was given before. Each rank has read the cells of its box and of the halo
around it; only a few numbers for each coarsest patch are gathered, for statistics and for refinement. One process is the case
of a box that is the whole domain, where every route leads a token to itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.fields import BatchPart, FieldBatch, Samples
from matey.model.blocks import Near, keys_of
from matey.model.boxes import (
    Cut,
    Grains,
    Held,
    Wide,
    features_of,
    grain_of,
    grains_around,
    held_of,
    interpolated_cells,
    reach_of,
)
from matey.model.cells import Reach
from matey.model.configuration import MateyConfig
from matey.model.given import given_of, in_history, parameters_of, rows_of, scales_of, with_given, with_known
from matey.model.modules import Rows
from matey.model.nested import with_tensors
from matey.model.sequence_group import BlockPlan, CellRoute, Exchange, RankGroup, Route
from matey.tokens.decomposition import Decomposition, Frames
from matey.tokens.layout import TokenLayout
from matey.tokens.neighbours import neighbours_of
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, parts_along
from matey.tokens.tokenize import (
    TokenBatch,
    check_samples,
    criteria_by_coarsest,
    lay_out,
    refined_from,
    statistics_from,
    sums_by_coarsest,
    tokenize,
    width_of_criteria,
)


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
class Prepared:
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
        near: the nodes around the tokens of the even share, and the route of tokens to the ranks whose tokens they lie around;
            None for a network that does not mix neighbours.
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
    near: Near | None
    in_blocks: Near | None
    leave: Route | None
    block_plan: BlockPlan
    num_of_batches: tuple[int, ...]
    halos: tuple[CellRoute, ...] = ()

    def to(self, device: torch.device | str) -> Prepared:
        """Return the micro-batch with its tensors on ``device``."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=not str(device).startswith("cpu")))

    def with_halos(self, halos: Sequence[Sequence[int]], ranks: RankGroup) -> Prepared:
        """Return the micro-batch with a plan for a loss that looks at cells ``z, y, x`` around a cell, for each batch."""
        routes = (held.cells.around(halo, ranks) for held, halo in zip(self.held, halos, strict=True))
        return replace(self, halos=tuple(routes))

    def at_lead(self, lead: int) -> Prepared:
        """Return the micro-batch for a prediction ``lead`` snapshots ahead; given fields must not change in time."""
        later = (replace(about, lead_time=torch.full_like(about.lead_time, lead)) for about in self.samples)
        return replace(self, samples=tuple(later))


@torch.no_grad()
def prepare(
    batches: Sequence[FieldBatch],
    config: MateyConfig,
    ranks: RankGroup | None = None,
    token_batch: TokenBatch | None = None,
) -> Prepared:
    """Prepare a micro-batch that every rank has whole, on the device of the fields, which is best the host.

    Args:
        batches: the batches of a micro-batch; the same on all ranks of a group.
        config: the configuration of the model.
        ranks: the group of ranks that share the samples; by default one process.
        token_batch: the tokens of these batches, if they were found before.

    Raises:
        ValueError: a field is not in the vocabulary, a patch does not divide a batch's frames, or a budget cannot be spent.
    """
    ranks = ranks or RankGroup()
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
def prepare_parts(parts: list[BatchPart], config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Prepared:
    """Prepare a micro-batch of which each rank has read what `BoxShare` says; all ranks of the group call together.

    Args:
        parts: this rank's part of each batch. The list is emptied, so that values do not lie in memory twice.
        config: the configuration of the model; the criterion of the refinement has to look at one patch alone.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.

    Raises:
        ValueError: see `prepare`.
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
    wides: Sequence[Wide],
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


def _assembled(part: BatchPart, cut: Cut) -> Wide:
    """Bring the samples that a rank has read together."""
    samples = range(cut.box.samples.start, cut.box.samples.stop)
    assert [piece.sample for piece in part.pieces] == list(samples), "a rank reads one piece of each of its samples"
    about, sizes = part.samples, [span.cells.stop - span.cells.start for span in cut.spans]
    if not part.pieces:
        empty = torch.empty(0, about.window[0], len(about.fields), *sizes, dtype=about.dtype)
        given = torch.empty(0, part.num_given, len(about.given_fields), *sizes, dtype=about.dtype)
        return Wide(empty, empty[:, 0] if part.has_target else None, given if part.num_given else None)

    def together(name: str) -> Tensor | None:
        values = [getattr(piece, name) for piece in part.pieces]
        return None if values[0] is None else torch.stack(values)

    history = together("history")
    assert history is not None
    return Wide(history, together("target") if part.has_target else None, together("given"))


@dataclass(frozen=True)
class _Gather:
    """Gathers numbers of each coarsest patch from the ranks that hold them, in the order of the patches."""

    decompositions: Sequence[Decomposition]
    ranks: RankGroup
    exchange: Exchange

    def _of_all(self, rows: Sequence[Tensor], widths: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
        """Return the rows ``(b Z Y X, w)`` of each batch from those of this rank's patches."""
        holders = [each.rank_of_coarsest().flatten() for each in self.decompositions]
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
        coarsest, widths = self.decompositions[0].coarsest, [4 * history.shape[2] for history in histories]
        rows = [
            torch.cat([history.new_empty(0, width), *(sums_by_coarsest(one[None], coarsest) for one in history)])
            for history, width in zip(histories, widths, strict=True)
        ]
        found = self._of_all(rows, widths, samples[0].dtype)
        return [
            statistics_from(row, about, each.frames.grid_of(coarsest), coarsest)
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
                criteria_by_coarsest(one[None], normalisation.of([first + number]), *how)
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
    wides: Sequence[Wide],
    given: Sequence[Normalisation | None],
    config: MateyConfig,
    ranks: RankGroup,
) -> Prepared:
    layout, frames, patches = token_batch.layout, token_batch.frames, config.patches
    device, names = layout.row.device, config.parameters
    rows = tuple(rows_of(batch, config, device) for batch in samples)
    inputs = [with_given(*each) for each in zip(token_batch.normalisations, given, strict=True)]
    places = TokenPlaces(layout, frames, patches)
    num_tokens, me = layout.num_tokens, ranks.place
    even = ranks.rank_of_tokens(num_tokens).to(device)
    shares = [(even == rank).nonzero(as_tuple=True)[0] for rank in range(ranks.size)]
    box_of = places.in_coarsest([cut.decomposition.rank_of_coarsest().to(device) for cut in cuts])
    if config.has_cells:
        of_ranks = ([Cut.of_rank(about, config, rank, ranks.size) for about in samples] for rank in range(ranks.size))
        needed = [places.given_to(of_rank, reach_of(config)) for of_rank in of_ranks]
        grains = places.grains(cuts, needed[me], reach_of(config))
    else:
        needed = [(layout.is_last & (box_of == rank)).nonzero(as_tuple=True)[0] for rank in range(ranks.size)]
        grains = [None] * len(cuts)
    own, block_plan = ranks.shard(num_tokens), ranks.plan_block(keys_of(layout, config.scheme, patches))
    near, in_blocks = _near(token_batch, shares, even, block_plan, config, me)
    of_batches = zip(cuts, wides, token_batch.normalisations, given, grains, strict=True)
    return Prepared(
        samples=tuple(samples),
        rows=rows,
        normalisations=token_batch.normalisations,
        scales=scales_of(inputs, [row.inputs for row in rows], config.fields, config.scales),
        parameters=torch.cat([parameters_of(batch, names, device) for batch in samples]) if names else None,
        held=tuple(held_of(*of_batch, config) for of_batch in of_batches),
        tokens=places.of_boxes((box_of == me).nonzero(as_tuple=True)[0], cuts, needed[me]),
        enter=Route.planned(box_of, shares, me),
        layout=layout.select(own),
        near=near,
        in_blocks=in_blocks,
        leave=Route.planned(even, needed, me),
        block_plan=block_plan,
        num_of_batches=tuple(torch.bincount(layout.batch[own], minlength=len(frames)).tolist()),
    )


def _near(
    token_batch: TokenBatch, shares: Sequence[Tensor], even: Tensor, plan: BlockPlan, config: MateyConfig, me: int
) -> tuple[Near | None, Near | None]:
    """Return the nodes around this rank's tokens, in their order and in that of the blocks, see `Prepared`."""
    if not config.mixes_neighbours:
        return None, None
    neighbours, route = neighbours_of(token_batch.layout, token_batch.frames, config.patches), None
    if len(shares) > 1:
        seen = [neighbours.seen_by(share) for share in shares]
        route, neighbours = Route.planned(even, [tokens for _, tokens in seen], me), seen[me][0]
    in_blocks = neighbours if plan.enter is None else neighbours.renumbered(plan.enter.index, plan.enter.inverse)
    return (route, neighbours), (route, in_blocks)


@dataclass(frozen=True)
class TokenPlaces:
    """The places of all tokens of a micro-batch."""

    layout: TokenLayout
    frames: Sequence[Frames]
    patches: Sequence[Patch]

    def _sample(self) -> Tensor:
        """Return the number of each token's sample in its batch, ``(n,)``."""
        first = self.layout.kinds.first_sample
        return self.layout.sample - first.index_select(0, self.layout.kind.int())

    def in_coarsest(self, of_batches: Sequence[Tensor]) -> Tensor:
        """Return a value of each token's coarsest patch, ``(n,)``, from those of each batch, ``(b, Z, Y, X)``."""
        layout = self.layout
        ratio = torch.tensor([parts_along(self.patches[0], patch) for patch in self.patches], device=layout.row.device)
        sample, place = self._sample(), layout.place // ratio[layout.level]
        found = torch.empty_like(sample)
        for number, values in enumerate(of_batches):
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
        for span, size in zip(features_of(cut.spans, reach), grain[1:], strict=True):
            around, held = grains_around(span, size), -(-span.length // size)
            places = torch.arange(around.start, around.stop)
            first.append(around.start)
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

    def grains(self, cuts: Sequence[Cut], needed: Tensor, reach: Reach) -> list[Grains | None]:
        """Return the grains in and around a rank's box of each batch, from all tokens ``(k,)`` that give them."""
        grain, level = grain_of(self.patches), self.layout.level[needed]
        start = torch.full((self.layout.num_tokens + 1,), 0, device=needed.device)
        count = 0
        for number, patch in enumerate(self.patches):
            mine, each = needed[level == number], math.prod(parts_along(patch, grain))
            start[mine] = count + each * torch.arange(len(mine), device=needed.device)
            count += each * len(mine)
        found: list[Grains | None] = []
        for batch, cut in enumerate(cuts):
            first, of_levels = self._grains_around(cut, batch, reach)
            numbers = torch.stack([torch.where(tokens >= 0, start[tokens] + sub, count) for tokens, sub in of_levels])
            # Without parents each grain is of one leaf, whose number is smaller than that of none.
            keeps_parents = not bool(self.layout.is_leaf.all())
            spans = [
                (span, interpolated_cells(span, size))
                for span, size in zip(features_of(cut.spans, reach), grain[1:], strict=True)
            ]
            grains = Grains(
                numbers=numbers if keeps_parents else numbers.amin(0, keepdim=True),
                first=tuple(first),
                cells=tuple(cells for _, cells in spans),
                chosen=tuple(span.index().to(needed.device) if cells != span.cells else None for span, cells in spans),
            )
            found.append(grains)
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
                for axis, (side, cells, coarsest) in enumerate(
                    zip(cut.box.cells, patch[1:], self.patches[0][1:], strict=True)
                ):
                    covered = -(-(side.stop - side.start) // coarsest) * coarsest
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


def micro_batch(batches: object) -> list[FieldBatch]:
    """Return one batch or several as a list.

    Raises:
        ValueError: there is no batch, something else is among the batches, or a history requires a gradient.
    """
    found: list[object] = [batches] if isinstance(batches, FieldBatch) else []
    if isinstance(batches, Sequence):
        found = [*batches]
    if not found or not all(isinstance(each, FieldBatch) for each in found):
        kinds = sorted({type(each).__name__ for each in found})
        came = type(batches).__name__ + (f" of {', '.join(kinds) or 'none'}" if isinstance(batches, Sequence) else "")
        raise ValueError(
            f"A model takes a FieldBatch or a list of them, got {came}; make one by matey.FieldBatch(system, fields, history, "
            "lead_time)."
        )
    known = [each for each in found if isinstance(each, FieldBatch)]
    if torch.is_grad_enabled() and any(each.history.requires_grad for each in known):
        raise ValueError(
            "A history requires a gradient, which would be missing: fields are normalised and cut into tokens without one. "
            "Give history.detach(), or predict within torch.no_grad()."
        )
    return known


def single(batch: object) -> FieldBatch:
    """Return the argument if it is one batch.

    Raises:
        ValueError: the argument is something else.
    """
    if not isinstance(batch, FieldBatch):
        raise ValueError(
            f"predict takes one FieldBatch, got {type(batch).__name__}; call the model itself with a list of them."
        )
    return batch
