"""Tables that compare the physics of forecasts and truth, for the terminal and for pages, for one model or several."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matey.evaluate.beyond import Beyond
from matey.evaluate.comparison import one_of, side_by_side
from matey.evaluate.physics import CORRELATION_TIME, LEAST_CORRELATION, TRUTH
from matey.evaluate.records import PERSISTENCE, Record
from matey.evaluate.spectra import POWER
from matey.physics import measure
from matey.report.page import definitions, heading, paragraph, table
from matey.report.summary import forecast_text, summary_records
from matey.text_table import text_table

LABELS = {CORRELATION_TIME: "correlation time"} | {name: name.replace("_", " of ") + " scales" for name in POWER}
CORRELATION_MEANING = (
    f"Snapshots after which the mean correlation of a rollout with the truth falls below {LEAST_CORRELATION:g}, along a "
    "straight line from one snapshot to the next; beside it, persistence's."
)
POWER_MEANING = (
    "Power of the forecast at the end of rollouts over the truth's, in a third of the wavenumbers, the geometric mean over the "
    "fields: below 1 the forecast is smoother than the truth."
)


def physics_rows(records_by_model: Sequence[Sequence[Record]]) -> list[tuple[str, ...]]:
    """Return rows: system, forecast, quantity, each model's value, and the truth's (persistence's for correlation times).

    Rows are for the longest lead and the last step of every rollout, because errors in conserved quantities add up.

    Args:
        records_by_model: records of each model on the same forecasts.
    """
    rows = []
    for records in side_by_side([_chosen(records) for records in records_by_model]):
        first = one_of(records)
        for name in (name for name in first.physics if not name.startswith((TRUTH, PERSISTENCE))):
            beside = PERSISTENCE if name == CORRELATION_TIME else TRUTH
            cells = [value_text(record, name) for record in records] + [value_text(first, beside + name)]
            rows.append((first.system, forecast_text(first), label_of(name), *cells))
    return rows


def physics_text(names: Sequence[str], records_by_model: Sequence[Sequence[Record]]) -> str:
    """Format the rows as a plain table; empty without rows."""
    rows = physics_rows(records_by_model)
    return text_table(("physics", "", "", *names, "truth"), rows, num_text=3, merge=2) if rows else ""


def physics_section(names: Sequence[str], records_by_model: Sequence[Sequence[Record]]) -> list[str]:
    """Return the section of a page; empty without rows."""
    rows = physics_rows(records_by_model)
    if not rows:
        return []
    names_of_all = {name for records in records_by_model for record in records for name in record.physics}
    of_measures = {found.label: found.meaning for name in names_of_all if (found := measure(name))}
    of_measures[label_of(CORRELATION_TIME)] = CORRELATION_MEANING
    of_measures |= {label_of(name): POWER_MEANING for name in POWER}
    present = dict.fromkeys(row[2] for row in rows)
    return [
        heading(2, "Physics"),
        paragraph(
            "What the equations keep, of forecasts and of the truth: what the truth has of it, its grid and its file have made."
        ),
        table(("system", "forecast", "quantity", *names, "truth"), rows, num_text=3),
        definitions([(label, of_measures[label]) for label in present if label in of_measures]),
    ]


def label_of(name: str) -> str:
    """Return a quantity's name in tables."""
    found = measure(name)
    return LABELS.get(name) or (found.label if found else name)


def value_text(record: Record | None, name: str) -> str:
    """Format a quantity with three digits; a correlation time beyond the rollout's end is shown as longer than the rollout."""
    if record is None:
        return "-"
    value = record.physics.get(name, math.nan)
    if name.endswith(CORRELATION_TIME):
        text = f"{value:.1f}" if math.isfinite(value) else f"> {record.lead}"
        return f"{text} (persistence)" if name.startswith(PERSISTENCE) else text
    return f"{value:.3g}" if math.isfinite(value) else "diverged"


def _chosen(records: Sequence[Record]) -> list[Record]:
    """Return the records of the summary at each system's longest lead and at the ends of its rollouts."""
    chosen = summary_records(records)
    longest = {record.system: record.lead for record in chosen if not record.is_rollout}
    return [record for record in chosen if record.is_rollout or record.lead == longest[record.system]]


def beyond_rows(names: Sequence[str], of_models: Sequence[Beyond]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a table of rollouts beyond the end of the truth, with two columns for each model."""
    first = of_models[0]
    steps = [f"{name} at {step}" for name in names for step in (first.num_true, first.num_steps)]
    head = ("beyond the truth", "quantity", f"truth at {first.num_true}", *steps)
    rows = []
    for key in dict.fromkeys(key for beyond in of_models for key in beyond.drifts):
        row = [beyond.drifts.get(key) for beyond in of_models]
        truth = next(drift[0] for drift in row if drift is not None)
        shown = [truth, *(value for drift in row for value in ((None, None) if drift is None else drift[1:]))]
        rows.append((*key, *("-" if v is None else f"{v:.3g}" if math.isfinite(v) else "diverged" for v in shown)))
    return head, rows


def beyond_text(names: Sequence[str], of_models: Sequence[Beyond]) -> str:
    """Format the table of `beyond_rows` as plain text."""
    return text_table(*beyond_rows(names, of_models), num_text=2)


def beyond_section(names: Sequence[str], of_models: Sequence[Beyond]) -> list[str]:
    """Return the table of `beyond_rows` as a section of a page; empty without such rollouts."""
    if not of_models:
        return []
    text = (
        f"The truth ends after {of_models[0].num_true} snapshots. Rollouts from the beginning of a few trajectories went on to "
        f"{of_models[0].num_steps}: what has become of what the equations keep, and of the mean of each field, over its size."
    )
    head, rows = beyond_rows(names, of_models)
    return [heading(2, "Beyond the truth"), paragraph(text), table(("system", *head[1:]), rows, num_text=2)]
