"""The scores and costs of a study's points, as rows, and as a table of means and deviations over the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from matey.checkpoints.run_files import RECORDS
from matey.evaluate.records import read_records
from matey.report.summary import summary_records
from matey.studies.equal_error import Curve, cost_text, crossing
from matey.studies.folder import Row
from matey.studies.physics import physics_text, row_of
from matey.studies.pretraining.costs import PARTS, Costs
from matey.studies.pretraining.table import Point, Table
from matey.studies.seeds import OfSeeds, mean_and_deviation, quotient
from matey.text_table import text_table

COLUMNS = (
    ("tokens", "tokens", "{:.0f}", 1),
    ("parameters", "weights", "{:.2f} M", 1e-6),
    ("forward_operations", "operations", "{:.3f} GFLOP", 1e-9),
    ("step_seconds", "step", "{:.3f} s", 1),
    ("training_seconds", "training", "{:.0f} s", 1),
    ("samples_per_second", "samples", "{:.3g}/s", 1),
    ("forecast_seconds", "forecast", "{:.1f} ms", 1e3),
    ("batch_seconds", "of 16", "{:.1f} ms", 1e3),
    ("peak_memory_bytes", "memory", "{:.0f} MiB", 2**-20),
)
MEASURED = [(key, title) for key, title, *_ in COLUMNS[3:] if key != "samples_per_second"]
GROWING = [column for column in COLUMNS if column[0] not in ("parameters", "training_seconds", "samples_per_second")]


def rows_of(point: Point, steps: int, folder: Path, costs: Path) -> list[Row]:
    """Return a row for each system and forecast of a finished point.

    Args:
        point: the point.
        steps: number of steps of its training.
        folder: folder of the point's run, with its ``metrics.json``.
        costs: the file of the point's costs.
    """
    measured = asdict(Costs(**json.loads(costs.read_text(encoding="utf-8"))))
    measured["training_seconds"] = steps * measured["step_seconds"]
    about = {"series": point.case.series, "label": point.case.label, "case": point.case.name, "seed": point.seed}
    return [
        {
            **about,
            **row_of(record),
            "correlation": record.errors.get("correlation", math.nan),
            **measured,
        }
        for record in summary_records(read_records(folder / RECORDS))
    ]


def study_table(rows: Sequence[Row], table: Table) -> str:
    """Format costs and errors of each case; below, errors, costs and gains over the reference cases', and physics.

    An error is the geometric mean over systems of NRMSE over persistence's, with mean and deviation over the seeds.
    """
    forecasts = list(dict.fromkeys(row["forecast"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = []
    for case in cases:
        own = [row for row in rows if row["case"] == case]
        cells = [text.format(scale * np.mean([row[key] for row in own])) for key, _, text, scale in COLUMNS]
        cells += [mean_and_deviation(errors_of(own, forecast).values()) for forecast in forecasts]
        lines.append([_model(own[0]), *cells, str(len({row["seed"] for row in own}))])
    texts = [text_table(["", *(title for _, title, _, _ in COLUMNS), *forecasts, "seeds"], lines)]
    references, controls = ([case for case in names if case in cases] for names in (table.references, table.controls))
    for reference in (*references, *controls):
        control = next(row for row in rows if row["case"] == reference)
        alike = compared(rows, reference, table)
        if reference in controls:
            alike = [row for row in alike if _are_alike(row, control)]
        texts += [over_text(alike, reference, forecasts), gain_text(alike, reference, forecasts)]
    texts.insert(1, _samples_text(rows))
    texts += [growth_text(rows) if table.labels_grow else equal_error_text(rows, references, forecasts, table)]
    return "\n\n".join(filter(None, [*texts, messages_text(rows), physics_text(rows, _model)]))


def _samples_text(rows: Sequence[Row]) -> str:
    """Return a warning if trainings took steps of different numbers of samples, as on other numbers of ranks."""
    models: dict[int, list[str]] = {}
    for row in rows:
        samples = row["samples_per_second"] * row["step_seconds"]
        if math.isfinite(samples):
            models.setdefault(round(samples), []).append(_model(row))
    if len(models) < 2:
        return ""
    lines = [f"{samples}: {', '.join(dict.fromkeys(of))}" for samples, of in sorted(models.items())]
    return "\n".join(["Samples a step, which are not the same for all, so that some saw more than others:", *lines])


def compared(rows: Sequence[Row], reference: str, table: Table) -> list[Row]:
    """Return the rows that a study compares with a reference's: those of the same windows, and of its scheme if it says so.

    A model with a longer history is scored on windows that begin later, of which persistence has another error.
    """
    own = [row for row in rows if row["case"] == reference]
    known = {(row["system"], row["forecast"]): row["persistence_nrmse"] for row in own}
    scheme = own[0]["series"].split()[0]
    return [
        row
        for row in rows
        if math.isclose(row["persistence_nrmse"], known.get((row["system"], row["forecast"]), 0.0), rel_tol=1e-4)
        and (not table.of_one_scheme or row["series"].split()[0] == scheme)
    ]


def _are_alike(row: Row, control: Row) -> bool:
    """Whether a row has the control's label; criteria are labelled with tokens, uniform patches with their size in cells."""
    return row["label"] == control["label"] and (" by " in row["series"]) == (" by " in control["series"])


def over_text(rows: Sequence[Row], reference: str, forecasts: Sequence[str]) -> str:
    """Format each case's errors and measured costs over the reference case's, as means and deviations over the seeds."""
    other, lines = [row for row in rows if row["case"] == reference], []
    for case in dict.fromkeys(row["case"] for row in rows if row["case"] != reference):
        own = [row for row in rows if row["case"] == case]
        cells = [quotient(errors_of(own, forecast), errors_of(other, forecast)) for forecast in forecasts]
        cells += [quotient(costs_of(own, key), costs_of(other, key)) for key, _ in MEASURED]
        lines.append([_model(own[0]), *cells])
    head = [f"over {_model(other[0])}", *forecasts, *(title for _, title in MEASURED)]
    return text_table(head, lines) if lines else ""


def gain_text(rows: Sequence[Row], reference: str, forecasts: Sequence[str]) -> str:
    """Format each case's gain over persistence over the reference case's, as means and deviations over the seeds.

    Models that have hardly learnt all have about persistence's error, and so about the same error; their gains differ.
    """
    gains = {
        case: [_gains([row for row in rows if row["case"] == case], forecast) for forecast in forecasts]
        for case in dict.fromkeys(row["case"] for row in rows)
    }
    other, names = gains.pop(reference), {row["case"]: _model(row) for row in rows}
    lines = [[names[case], *map(quotient, own, other)] for case, own in gains.items()]
    return text_table([f"gain on persistence over that of {names[reference]}", *forecasts], lines) if lines else ""


def _gains(rows: Sequence[Row], forecast: str) -> OfSeeds:
    return {seed: 1 - error for seed, error in errors_of(rows, forecast).items()}


def equal_error_text(rows: Sequence[Row], references: Sequence[str], forecasts: Sequence[str], table: Table) -> str:
    """Format the training time at which each line of the plot reaches a reference's error, over the reference's time.

    It is read for each seed that the reference and all cases of the line have, and given as mean and deviation; where a seed's
    line does not reach so far, it is read in the means of these seeds.
    """
    lines = []
    for reference in references:
        alike = compared(rows, reference, table)
        other = [row for row in alike if row["case"] == reference]
        lines_of: dict[tuple[str, ...], str] = {}
        for row in alike:
            lines_of.setdefault(tuple(table.line_of(row["series"])), row["series"])
        for names, series in lines_of.items():
            own = [row for row in alike if row["case"] in names]
            if own and reference not in names:
                cells = [_equal_error(own, other, forecast) for forecast in forecasts]
                lines.append([_model(other[0]), series, *cells])
    head = ["training time at equal error, over that of", "", *forecasts]
    return text_table(head, lines, num_text=2, merge=1) if lines else ""


def _equal_error(rows: Sequence[Row], reference: Sequence[Row], forecast: str) -> str:
    """Return the training time at which a line of the plot reaches the reference's error, over the reference's, as text."""
    cases = [[row for row in rows if row["case"] == case] for case in dict.fromkeys(row["case"] for row in rows)]
    seeds = sorted(set.intersection(*({row["seed"] for row in of_case} for of_case in (reference, *cases))))
    if not seeds:
        return "-"
    points = [_times_and_errors(of_case, forecast, seeds) for of_case in cases]
    others = _times_and_errors(reference, forecast, seeds)
    found = [(*crossing(_curve(of_seed), error), time) for (time, error), *of_seed in zip(others, *points, strict=True)]
    if all(not side and math.isfinite(cost) for side, cost, _ in found):
        return mean_and_deviation([cost / time for _, cost, time in found], digits=2)
    time, error = np.mean(others, axis=0)
    return cost_text(
        _curve([tuple(np.mean(each, axis=0)) for each in points]), error, lambda cost: f"{cost / time:.2f}"
    )


def _times_and_errors(rows: Sequence[Row], forecast: str, seeds: Sequence[int]) -> list[tuple[float, float]]:
    """Return a model's training time and error for each of the seeds."""
    times, errors = costs_of(rows, "training_seconds"), errors_of(rows, forecast)
    return [(times[seed], errors[seed]) for seed in seeds]


def _curve(points: Iterable[tuple[float, float]]) -> Curve:
    """Return the points of a line, fastest first, without diverged ones."""
    return sorted(point for point in points if math.isfinite(point[1]))


def messages_text(rows: Sequence[Row]) -> str:
    """Format the parts of a step and its messages, if counted: wall times of the first rank."""
    head = ["a step of a rank", *(f"{part} (s)" for part in PARTS), "messages", "MiB"]
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows if row["message_calls"]):
        own = [row for row in rows if row["case"] == case]
        parts = [f"{np.mean([row[f'{part}_seconds'] for row in own]):.3f}" for part in PARTS]
        calls, size = (np.mean([row[f"message_{what}"] for row in own]) for what in ("calls", "bytes"))
        lines.append([_model(own[0]), *parts, f"{calls:.0f}", f"{size / 2**20:.1f}"])
    return text_table(head, lines) if lines else ""


def _model(row: Row) -> str:
    return f"{row['series']}, {row['label']}"


def growth_text(rows: Sequence[Row]) -> str:
    """Format the exponents with which each cost grows with the numbers that label a line of the plot.

    They are fitted over all labels and over the last two, with mean and deviation over the seeds; a single point has none.
    Below, those of each line over those of the first line.
    """
    grown: dict[tuple[str, str], list[OfSeeds]] = {}
    for series in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == series]
        cells = sorted({float(row["label"]) for row in own})
        for first, *more in [cells] + [cells[-2:]] * (len(cells) > 2):
            if more:
                within = [row for row in own if float(row["label"]) >= first]
                grown[series, f"{first:g} to {more[-1]:g}"] = [exponents(within, key) for key, *_ in GROWING]
    reference, titles = rows[0]["series"], [title for _, title, _, _ in GROWING]
    lines = [[*name, *(mean_and_deviation(each.values()) for each in own)] for name, own in grown.items()]
    text = text_table(["exponent over the number of cells along an axis", "", *titles], lines, num_text=2, merge=1)
    lines = [
        [series, cells, *map(quotient, own, grown[reference, cells])]
        for (series, cells), own in grown.items()
        if series != reference and (reference, cells) in grown
    ]
    head = [f"exponent over that of {reference}", "", *titles]
    return f"{text}\n\n{text_table(head, lines, num_text=2, merge=1)}" if lines else text


def exponents(rows: Sequence[Row], key: str) -> OfSeeds:
    """Return, for each seed, the exponent with which a cost grows along one line of the plot.

    It is the slope of a least-squares line through the logarithms; seeds without all labels of the line are left out.
    """
    labels = {row["label"] for row in rows}
    of_seeds = {
        seed: [row for row in rows if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in rows)
    }
    return {
        seed: float(np.polyfit(np.log([float(row["label"]) for row in own]), np.log([row[key] for row in own]), 1)[0])
        for seed, own in of_seeds.items()
        if {row["label"] for row in own} == labels != {rows[0]["label"]}
    }


def errors_of(rows: Sequence[Row], forecast: str) -> OfSeeds:
    """Return, for each seed, the geometric mean over the systems of the error over persistence's."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if row["forecast"] == forecast:
            by_seed.setdefault(row["seed"], []).append(row["ratio"])
    return {seed: math.exp(np.mean(np.log(ratios))) for seed, ratios in by_seed.items()}


def costs_of(rows: Sequence[Row], key: str) -> OfSeeds:
    """Return, for each seed, one of a model's costs."""
    return {row["seed"]: row[key] for row in rows}
