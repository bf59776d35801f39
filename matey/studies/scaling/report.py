"""The report of a scaling study: a table of all points, and one page that shows how the run scales."""

from __future__ import annotations

from collections.abc import Sequence

from matey.checkpoints.run_files import REPORT
from matey.config import load_config
from matey.report.page import definitions, figure, heading, page, paragraph, table
from matey.report.png import to_png
from matey.studies.scaling import charts
from matey.studies.scaling.measured import Measured, read_lengths
from matey.studies.scaling.results import Results, collect
from matey.studies.scaling.rows import Row, write_rows
from matey.studies.scaling.running import LENGTHS_FILE
from matey.studies.scaling.study import Point, Study

MODES = {
    "weak": "Weak scaling: every rank has as many samples at all points, so that tokens per second should grow with the ranks.",
    "strong": "Strong scaling: the global batch is the same at all points, so that a step should take less time on more ranks.",
    "sequence": "Sequence parallelism: all ranks share the tokens of one sample, so that a rank should hold fewer of them.",
}

LENGTHS_CAPTION = (
    "Filled: measured; hollow: by what training knows beforehand, the blocks' activations, shared out evenly; dashed: in "
    "proportion to the ranks, from the smallest measured point. Right: the samples that were measured."
)
LITTLE_ACTIVITY = 0.7  # CPU time over wall-clock time below which a report says so


def write_report(study: Study, also_on: Sequence[str] = ()) -> str:
    """Write points.csv and report.html into the study's folder and return a line that says where they are.

    Args:
        study: a study of which at least one point has been measured.
        also_on: names of further machines on which the run is modelled.

    Raises:
        ConfigError: no point has come beyond its warm-up, or a machine is not known.
    """
    results = collect(study, also_on)
    write_rows(study.folder / "points.csv", results.rows)
    title = f"{study.mode} scaling"
    (study.folder / REPORT).write_text(page(f"{title} - MATEY", _sections(results)), encoding="utf-8")
    return f"Table: {study.folder / 'points.csv'}   report: {study.folder / REPORT}"


def _sections(results: Results) -> list[str]:
    study, rows = results.study, results.rows_of("measured")
    here = sorted([*rows, *results.rows_of("modelled")], key=lambda row: (row.ranks, row.kind))
    return [
        heading(1, f"{study.mode.capitalize()} scaling"),
        paragraph(MODES[study.mode], "soft"),
        definitions(_facts(results)),
        *_warnings(rows),
        figure(
            to_png(charts.scaling_figure(here)),
            "Filled: measured; hollow: modelled; dashed: what ideal scaling from the smallest measured point gives.",
        ),
        _rows_table(here),
        paragraph(
            "Step: median, and between which seconds the middle half of the steps lay. Efficiency: tokens per second and rank "
            "over those of the smallest point. CPU time: that of all ranks in a step.",
            "soft",
        ),
        *_parts(results.measured, rows),
        *_lengths(study, here),
        heading(2, "Model against measurement"),
        paragraph(results.model_note),
        *_agreement(rows, results.rows_of("modelled")),
        *(part for name in results.other_machines for part in _elsewhere(results.rows_of("modelled", name), name)),
    ]


def _facts(results: Results) -> list[tuple[str, str]]:
    study = results.study
    run = load_config(study.folder_of(study.points[0]) / "run.yaml")
    missing = [point.name for point in study.points if point not in results.measured]
    facts = [
        (
            "model",
            f"{run.model.size} {run.model.scheme}, {run.tokens.set} patches {[list(p) for p in run.tokens.patches]}",
        ),
        ("data", ", ".join(data.path for data in run.data.sets)),
        ("points", ", ".join(str(point) for point in study.points)),
        ("machine", study.machine),
        (
            "steps",
            f"{study.warm_up} of warm-up left out; medians over the rest, of which the last are counted and not timed",
        ),
    ]
    return facts + ([("not measured", ", ".join(missing))] if missing else [])


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Say where wall-clock time does not mean what it seems to."""
    notes = []
    if shared := [row for row in rows if row.shares_cores]:
        notes.append(
            f"{' and '.join(f'{row.ranks} ranks share {row.num_cores:g} cores' for row in shared)}: there, wall-clock time and "
            "efficiency are not meaningful (crossed). What counts is the CPU time and the memory of all ranks together."
        )
    if idle := [row for row in rows if not row.shares_cores and row.activity < LITTLE_ACTIVITY]:
        notes.append(
            f"CPUs were busy for {', '.join(f'{row.activity:.0%} (ranks: {row.ranks})' for row in idle)} of the time only: the "
            "machine did other things, the ranks waited for each other, or a GPU computed."
        )
    return [paragraph(note) for note in notes]


def _rows_table(rows: Sequence[Row]) -> str:
    head = ("", "ranks", "samples", "step", "tokens/s", "efficiency", "CPU time", "memory: rank, all", "communication")
    return table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row as text."""
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
        "" if row.cpu_seconds is None else f"{row.cpu_seconds:.3g} s",
        f"{row.peak_memory_bytes / 2**30:.2f}{total} GiB",
        "" if row.communication_share is None else f"{row.communication_share:.0%}",
    )


def _parts(measured: dict[Point, Measured], rows: Sequence[Row]) -> list[str]:
    """Show the parts of a step and its collectives."""
    if not measured:
        return [paragraph("Nothing has been measured yet: all points are modelled.")]
    caption = "Measured. Communication is part of backward and optimizer."
    return [
        heading(2, "Where the time goes"),
        figure(to_png(charts.parts_figure(measured, rows)), caption),
        *_traffic(measured),
    ]


def _traffic(measured: dict[Point, Measured]) -> list[str]:
    rows = [
        (
            str(point.ranks),
            kind,
            f"{total['calls']:g}",
            f"{total['bytes'] / 2**20:.3f} MiB",
            f"{total['seconds'] * 1e3:.3g} ms",
        )
        for point, seen in measured.items()
        for kind, total in seen.traffic.items()
    ]
    head = ("ranks", "collective", "calls", "bytes", "time")
    caption = "Of rank 0 in a step, by DeepSpeed's communication logger; the time holds the waiting for ranks that come later."
    return [table(head, rows, num_text=2), paragraph(caption, "soft")] if rows else []


def _lengths(study: Study, rows: Sequence[Row]) -> list[str]:
    if study.lengths is None:
        return []
    cells = [
        (row.kind, str(row.ranks), f"{row.longest_tokens:,.0f}", f"{row.longest_tokens / study.lengths.num_tokens:.2f}")
        for row in rows
        if row.longest_tokens is not None
    ]
    if not cells:
        return []
    lengths = study.lengths
    assert lengths.limit is not None, "it is measured before any point"
    found = {point.ranks: read_lengths(study.folder_of(point) / LENGTHS_FILE) for point in study.points}
    samples = {ranks: points for ranks, points in found.items() if points}
    return [
        heading(2, "Longest sequence"),
        paragraph(
            f"Tokens of one sample in {lengths.case['dtype']} whose activations take at most "
            f"{lengths.limit / 2**20:,.0f} MiB on a rank. Measured: on a line through two made-up samples that about fit, on "
            "grids that grow along their first axis. A sample of "
            f"{'x'.join(map(str, lengths.case['grid']))} cells has {lengths.num_tokens:,} tokens."
        ),
        figure(to_png(charts.lengths_figure(rows, samples, lengths.limit)), LENGTHS_CAPTION),
        table(("", "ranks", "tokens", "over that sample"), cells),
    ]


def _agreement(measured: Sequence[Row], modelled: Sequence[Row]) -> list[str]:
    if not measured or not modelled:
        return []
    caption = (
        "The numbers at the points are their ranks; on the dashed line the model is right. Crossed: ranks share cores."
    )
    return [figure(to_png(charts.agreement_figure(measured, modelled)), caption)]


def _elsewhere(rows: list[Row], machine: str) -> list[str]:
    return [
        heading(2, f"Modelled on {machine}"),
        paragraph(
            f"Nothing of this was measured: rates and links are those of {machine}'s file, with a rank on every GPU."
        ),
        figure(to_png(charts.scaling_figure(rows)), "Hollow: modelled."),
        _rows_table(rows),
    ]
