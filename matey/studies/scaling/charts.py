"""The figures of a scaling study: measured points filled, modelled points hollow, ideals dashed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from matey.report.plots import COLOURS, STYLE
from matey.studies.scaling.measured import Row

MEASURED, MODELLED, IDEAL = COLOURS[0], COLOURS[1], "#7A7A7A"


@matplotlib.rc_context(STYLE)
def scaling_figure(rows: Sequence[Row]) -> Figure:
    """Draw throughput, efficiency, memory per rank and share of communication against the number of ranks."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    (throughput, efficiency), (memory, communication) = figure.subplots(2, 2)
    _draw(throughput, rows, lambda row: row.tokens_per_second)
    first = rows[0]
    ends = [min(row.ranks for row in rows), max(row.ranks for row in rows)]
    own = first.tokens_per_second / first.ranks
    throughput.plot(ends, [own * ranks for ranks in ends], "--", color=IDEAL, linewidth=1, label="ideal", zorder=1)
    throughput.set(title="tokens per second", yscale="log")
    _draw(efficiency, rows, lambda row: row.efficiency, is_doubtful=lambda row: row.shares_cores)
    efficiency.axhline(1, linestyle="--", color=IDEAL, linewidth=1)
    doubtful = any(row.shares_cores for row in rows)
    efficiency.set(title="efficiency" + (" (crossed: ranks share cores, not meaningful)" if doubtful else ""))
    _draw(memory, rows, lambda row: row.peak_memory_bytes / 2**30)
    memory.set(title="memory of the fullest rank, GiB")
    _draw(communication, rows, lambda row: row.communication_share)
    communication.set(title="communication's share of a step, nothing overlapping")
    for axes in (efficiency, memory, communication):
        axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 0.01))
    for axes in (throughput, efficiency, memory, communication):
        _ranks_axis(axes, rows)
    throughput.legend(fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def agreement_figure(measured: Sequence[Row], modelled: Sequence[Row]) -> Figure:
    """Draw modelled against measured step time and memory at the same points."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = (
        ("seconds of a step", lambda row: row.seconds),
        ("memory of the fullest rank, GiB", lambda row: row.peak_memory_bytes / 2**30),
    )
    by_ranks = {row.ranks: row for row in modelled}
    pairs = [(row, by_ranks[row.ranks]) for row in measured if row.ranks in by_ranks]
    for axes, (title, value) in zip(figure.subplots(1, 2), panels, strict=True):
        for seen, model in pairs:
            axes.plot(value(seen), value(model), "x" if seen.shares_cores else "o", color=MEASURED)
            axes.annotate(f" {seen.ranks}", (value(seen), value(model)), fontsize=8)
        largest = 1.15 * max(max(value(seen), value(model)) for seen, model in pairs)
        axes.plot([0, largest], [0, largest], "--", color=IDEAL, linewidth=1)
        axes.set(title=title, xlabel="measured", ylabel="modelled", xlim=(0, largest), ylim=(0, largest))
    return figure


@matplotlib.rc_context(STYLE)
def lengths_figure(rows: Sequence[Row], samples: dict[int, list[dict[str, Any]]], limit: float) -> Figure:
    """Draw the longest sequence that fits against the number of ranks, and the measured samples behind it.

    Args:
        rows: the rows of the report; those with ``longest_tokens`` are drawn.
        samples: the measured samples by number of ranks, from `matey.studies.scaling.measured.read_lengths`.
        limit: limit on the activations of a rank, in bytes.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    length, memory = figure.subplots(1, 2)
    _draw(length, rows, lambda row: row.longest_tokens)
    if known := [(row.ranks, row.longest_tokens) for row in rows if row.kind == "measured" and row.longest_tokens]:
        first_ranks, first_tokens = known[0]
        ranks = [first_ranks, max(row.ranks for row in rows)]
        ideal = [first_tokens / first_ranks * number for number in ranks]
        length.plot(ranks, ideal, "--", color=IDEAL, linewidth=1, label="ideal", zorder=1)
    length.set(title="tokens of the longest sequence that fits", ylim=(0, None))
    _ranks_axis(length, rows)
    length.legend(fontsize=8)
    for (num_ranks, points), colour in zip(samples.items(), itertools.cycle(COLOURS), strict=False):
        tokens = [point["num_tokens"] for point in points]
        taken = [max(point["activation_bytes"]) / 2**20 for point in points]
        memory.plot(tokens, taken, "o-", color=colour, label=f"{num_ranks} rank{'s' * (num_ranks > 1)}")
    memory.axhline(limit / 2**20, linestyle="--", color=IDEAL, linewidth=1, label="limit")
    memory.set(title="activations of a rank, MiB", xlabel="tokens", ylim=(0, None))
    memory.legend(fontsize=8)
    return figure


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    value: Callable[[Row], float | None],
    is_doubtful: Callable[[Row], bool] = lambda row: False,
) -> None:
    """Draw a number of the rows that have it, with a cross on doubtful ones."""
    for kind, colour, fill in (("modelled", MODELLED, "white"), ("measured", MEASURED, MEASURED)):
        own = [(row, number) for row in rows if row.kind == kind and (number := value(row)) is not None]
        if not own:
            continue
        ranks = [row.ranks for row, _ in own]
        values = [number for _, number in own]
        size = 7 if kind == "modelled" else 4.5
        axes.plot(ranks, values, "-o", color=colour, markerfacecolor=fill, markersize=size, linewidth=1.2, label=kind)
        crossed = [(row.ranks, number) for row, number in own if is_doubtful(row)]
        axes.plot(
            [r for r, _ in crossed], [number for _, number in crossed], "x", color="black", markersize=9, zorder=3
        )


def _ranks_axis(axes: Axes, rows: Sequence[Row]) -> None:
    ranks = sorted({row.ranks for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(number) for number in ranks], rotation=45 if len(ranks) > 8 else 0, fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ranks")
