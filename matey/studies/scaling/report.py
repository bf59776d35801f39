"""The report of a scaling study: a table of all points, plots, sentences that explain them, and one page with all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

from matey.checkpoints.run_files import REPORT
from matey.report.png import write_png
from matey.studies.folder import TEXT
from matey.studies.page import write_page
from matey.studies.scaling import charts
from matey.studies.scaling.measured import Row, read_lengths
from matey.studies.scaling.results import Results, collect, write_rows
from matey.studies.scaling.running import LENGTHS_FILE
from matey.studies.scaling.study import Study
from matey.text_table import text_table

MODES = {
    "weak": "Weak scaling: every rank has as many samples at all points, so that tokens per second should grow with the ranks.",
    "strong": "Strong scaling: the global batch is the same at all points, so that a step should take less time on more ranks.",
    "sequence": "Sequence parallelism: all ranks share the tokens of one sample, so that a rank should hold fewer of them.",
}
READING = (
    "Step: median, and between which seconds the middle half of the steps lay. Efficiency: tokens per second and rank over "
    "those of the smallest point. CPU time: that of all ranks in a step, and that of a token over the smallest point's. In "
    "the plots, filled is measured and hollow modelled; dashed is what ideal scaling from the smallest measured point gives."
)
WIDTH = 118
LITTLE_ACTIVITY = 0.7  # ratio of CPU time to wall time below which the report warns


def write_report(study: Study, also_on: Sequence[str] = ()) -> str:
    """Write points.csv, results.txt, plots and report.html into the study's folder; return the text of results.txt.

    Args:
        study: a study with at least one measured point.
        also_on: names of further machines to model the run on.

    Raises:
        ConfigError: no point has a step after the warm-up, or a machine is unknown.
    """
    results = collect(study, also_on)
    text = "\n\n".join(fill(part, WIDTH) if "\n" not in part else part for part in _paragraphs(results))
    write_rows(study.folder / "points.csv", results.rows)
    (study.folder / TEXT).write_text(f"{text}\n", encoding="utf-8")
    _draw(results)
    write_page(study.folder / REPORT, [study.folder])
    return f"{text}\n\nTable: {study.folder / 'points.csv'}   report: {study.folder / REPORT}"


def _draw(results: Results) -> None:
    study, measured, modelled = results.study, results.rows_of("measured"), results.rows_of("modelled")
    figures = {"points": charts.scaling_figure(_here(results))}
    if measured and modelled:
        figures["points_agreement"] = charts.agreement_figure(measured, modelled)
    if study.lengths is not None and study.lengths.limit is not None:
        found = {point.ranks: read_lengths(study.folder_of(point) / LENGTHS_FILE) for point in study.points}
        samples = {ranks: points for ranks, points in found.items() if points}
        figures["points_lengths"] = charts.lengths_figure(_here(results), samples, study.lengths.limit)
    for name in results.other_machines:
        figures[f"points_on_{Path(name).stem}"] = charts.scaling_figure(results.rows_of("modelled", name))
    for name, figure in figures.items():
        write_png(figure, study.folder / f"{name}.png")


def _paragraphs(results: Results) -> Iterator[str]:
    study, rows = results.study, results.rows_of("measured")
    run = study.run_of(study.points[0])
    yield MODES[study.mode]
    yield (
        f"Model: {run.model.size} {run.model.scheme}, {run.tokens.set} patches "
        f"{[list(patch) for patch in run.tokens.patches]}, on {', '.join(data.path for data in run.data.sets)}"
    )
    if missing := [str(point) for point in study.points if point.ranks not in {row.ranks for row in rows}]:
        yield f"Not measured: {', '.join(missing)}."
    yield from _warnings(rows)
    yield points_table(_here(results))
    yield READING
    if rows:
        yield _parts(rows)
        yield from _traffic(rows)
    yield from _lengths(study, _here(results))
    yield results.model_note
    for name in results.other_machines:
        yield f"Modelled on {name}. Nothing of this was measured: rates and links are its file's, with a rank on every GPU."
        yield points_table(results.rows_of("modelled", name))


def _here(results: Results) -> list[Row]:
    """Return the measured and the modelled rows of the study's own machine, point by point."""
    return sorted(results.rows_of("measured") + results.rows_of("modelled"), key=lambda row: (row.ranks, row.kind))


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield sentences on points whose wall time is misleading."""
    if shared := [row for row in rows if row.shares_cores]:
        yield (
            f"{' and '.join(f'{row.ranks} ranks share {row.num_cores:g} cores' for row in shared)}: there, wall-clock time "
            "and efficiency are not meaningful (crossed). What counts is the CPU time and the memory of all ranks together."
        )
    if idle := [row for row in rows if not row.shares_cores and row.activity < LITTLE_ACTIVITY]:
        yield (
            f"CPUs were busy for {', '.join(f'{row.activity:.0%} (ranks: {row.ranks})' for row in idle)} of the time only: "
            "the machine did other things, the ranks waited for each other, or a GPU computed."
        )


def points_table(rows: Sequence[Row]) -> str:
    """Format rows as a plain table."""
    head = ("", "ranks", "samples", "step", "tokens/s", "efficiency", "CPU time", "memory: rank, all", "communication")
    return text_table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    spread = "" if row.seconds_low is None else f" ({row.seconds_low:.3g} to {row.seconds_high:.3g})"
    efficiency = "shared cores" if row.shares_cores else f"{row.efficiency:.0%}"
    total = "" if row.total_memory_bytes is None else f", {row.total_memory_bytes / 2**30:.2f}"
    return (
        row.kind,
        str(row.ranks),
        str(row.samples),
        f"{row.seconds:.3g}{spread} s",
        f"{row.tokens_per_second:,.0f}",
        efficiency,
        "" if row.cpu_seconds is None else f"{row.cpu_seconds:.3g} s, {row.cpu_over_first:.2f}",
        f"{row.peak_memory_bytes / 2**30:.2f}{total} GiB",
        "" if row.communication_share is None else f"{row.communication_share:.0%}",
    )


def _parts(rows: Sequence[Row]) -> str:
    names = list(rows[0].seconds_by_part)
    lines = [(str(row.ranks), *(f"{row.seconds_by_part.get(name, 0.0):.3g} s" for name in names)) for row in rows]
    return text_table(("parts of a step, ranks", *names), lines)


def _traffic(rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines on the messages of rank 0 in a step; their time includes waiting for later ranks."""
    lines = [
        (
            str(row.ranks),
            kind,
            f"{total['calls']:g}",
            f"{total['bytes'] / 2**20:.3f} MiB",
            f"{total['seconds'] * 1e3:.3g} ms",
        )
        for row in rows
        for kind, total in row.traffic.items()
    ]
    if lines:
        yield text_table(("messages of rank 0, ranks", "collective", "calls", "bytes", "time"), lines, 2, merge=1)


def _lengths(study: Study, rows: Sequence[Row]) -> Iterator[str]:
    known = [(row, row.longest_tokens) for row in rows if row.longest_tokens is not None]
    if study.lengths is None or not known:
        return
    lengths = study.lengths
    assert lengths.limit is not None, "it is measured before any point"
    yield (
        f"Longest sequence: tokens of one sample in {lengths.case['dtype']} whose activations take at most "
        f"{lengths.limit / 2**20:,.0f} MiB on a rank. Measured: on a line through two made-up samples that about fit, on "
        "grids that grow along their first axis; modelled: by what the blocks alone keep, shared out evenly. A sample of "
        f"{'x'.join(map(str, lengths.case['grid']))} cells has {lengths.num_tokens:,} tokens."
    )
    cells = [
        (row.kind, str(row.ranks), f"{tokens:,.0f}", f"{tokens / lengths.num_tokens:.2f}") for row, tokens in known
    ]
    yield text_table(("", "ranks", "tokens", "over that sample"), cells)
