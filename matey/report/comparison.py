"""Compares several models: tables for the terminal, and one page with tables, curves and each model's worst case.

A peer has a dash in the rows of other systems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matey.evaluate.evaluation import Evaluation, best_of, one_of, side_by_side
from matey.evaluate.records import Record
from matey.evaluate.rollout import Beyond
from matey.report import plots
from matey.report.page import definitions, figure, heading, link, page, paragraph, table
from matey.report.pictures import to_png
from matey.report.tables import (
    baseline_cells,
    beyond_section,
    beyond_text,
    cost_cells,
    error_text,
    forecast_text,
    physics_section,
    physics_text,
    spread_cells,
    summary_records,
    worth_text,
)
from matey.text_table import text_table

STAR = "NRMSE: error over the size of the field, 0.01 is 1 %. *: the smallest of its row. docs/evaluation.md says more."
"""Legend of the numbers in `comparison_text`."""


def comparison_text(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    """Format errors and tokens as plain tables, a column for each model; a star marks the smallest error of a row."""
    rows = _rows(evaluations)
    columns = [f"{name} " for name in names]  # a space in place of a star
    errors, worst, worth = [], [], []
    for row in rows:
        record = one_of(row)
        about = record.system, forecast_text(record)
        cells = [f"{_error(r)}{'*' if i == best_of(row) else ' '}" for i, r in enumerate(row)]
        errors.append((*about, *cells, *baseline_cells(record)))
        worst.append((*about, *(f"{_spread_of(r)} " for r in row)))
        worth.append((*about, *(f"{_worth(r)} " for r in row)))
    tokens = [{cost.system: cost_cells(cost)[0] for cost in evaluation.costs} for evaluation in evaluations]
    systems = dict.fromkeys(row[0] for row in errors)
    costs = [(system, *(f"{of_model.get(system, '-')} " for of_model in tokens)) for system in systems]
    tables = [
        text_table(("NRMSE", "", *columns, "persistence", "extrapolation"), errors, num_text=2, merge=1),
        text_table(("worst trajectory", "", *columns), worst, num_text=2),
        text_table(("tokens' worth", "", *columns), worth, num_text=2),
        text_table(("tokens per sample", *columns), costs),
        physics_text(names, [evaluation.records for evaluation in evaluations]),
    ]
    if beyond := _beyond(evaluations):
        tables.append(beyond_text(names, beyond))
    return "\n\n".join(filter(None, tables))


def write_comparison(
    path: Path,
    names: Sequence[str],
    evaluations: Sequence[Evaluation],
    facts: Sequence[tuple[str, str]],
    pages: Sequence[str],
) -> None:
    """Write the page of a comparison.

    Args:
        path: path of the page.
        names: names of the models.
        evaluations: results of each model on the same windows.
        facts: pairs of a term and its description, on the data and the command.
        pages: path of each model's own page, relative to this page's folder.
    """
    rows = _rows(evaluations)
    body = [
        heading(1, " and ".join(names)),
        paragraph("MATEY: models beside each other on the same windows", "soft"),
        definitions(facts),
        *(f"<p>{link(f'The page of {name}', address)}</p>" for name, address in zip(names, pages, strict=True)),
        heading(2, "Errors"),
        paragraph(
            "NRMSE, mean over the fields and windows; the smallest of a row is set off. The models' pages explain it."
        ),
        _errors(names, rows),
        heading(2, "From trajectory to trajectory"),
        paragraph("NRMSE of the best and of the worst trajectory."),
        _by_model(names, rows, partial(_spread_of, both=True)),
        heading(2, "Tokens' worth"),
        paragraph("NRMSE with what tokens contribute at zero over that with it: 1 is nothing."),
        _by_model(names, rows, _worth),
        *physics_section(names, [evaluation.records for evaluation in evaluations]),
        *beyond_section(names, _beyond(evaluations)),
    ]
    if any(record.is_rollout for record in evaluations[0].records):
        png = to_png(plots.compared_figure(names, [evaluation.records for evaluation in evaluations]))
        body += [heading(2, "Rollouts"), figure(png, "Error after each step over the models' own predictions.")]
    body.append(heading(2, "Worst cases"))
    for name, evaluation in zip(names, evaluations, strict=True):
        for example in evaluation.worst:
            caption = (
                f"{name}: the largest error at lead {example.lead}: {example.trajectory}, from frame {example.frame}."
            )
            body += [heading(3, f"{example.system}, {name}"), figure(to_png(plots.forecast_figure(example)), caption)]
    path.write_text(page(f"{' and '.join(names)} - MATEY", body), encoding="utf-8")


def _rows(evaluations: Sequence[Evaluation]) -> list[tuple[Record | None, ...]]:
    return side_by_side([summary_records(evaluation.records) for evaluation in evaluations])


def _error(record: Record | None) -> str:
    return "-" if record is None else error_text(record.nrmse)


def _worth(record: Record | None) -> str:
    return "-" if record is None else worth_text(record)


def _spread_of(record: Record | None, both: bool = False) -> str:
    if record is None:
        return "-"
    smallest, largest, _ = spread_cells(record)
    return f"{smallest} to {largest}" if both else largest


def _beyond(evaluations: Sequence[Evaluation]) -> list[Beyond]:
    """Return the rollouts beyond the end of the truth, of all models or of none."""
    return [evaluation.beyond for evaluation in evaluations if evaluation.beyond is not None]


def _errors(names: Sequence[str], rows: Sequence[Sequence[Record | None]]) -> str:
    cells = [
        (
            record.system,
            forecast_text(record),
            *map(_error, row),
            *baseline_cells(record),
            str(record.num_windows),
        )
        for row, record in zip(rows, map(one_of, rows), strict=True)
    ]
    head = ("system", "forecast", *names, "persistence", "extrapolation", "windows")
    return table(head, cells, num_text=2, best=[2 + best_of(row) for row in rows])


def _by_model(
    names: Sequence[str], rows: Sequence[Sequence[Record | None]], text: Callable[[Record | None], str]
) -> str:
    cells = [
        (record.system, forecast_text(record), *map(text, row))
        for row, record in zip(rows, map(one_of, rows), strict=True)
    ]
    return table(("system", "forecast", *names), cells, num_text=2)
