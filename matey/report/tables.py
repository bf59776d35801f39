"""The summary of an evaluation: errors over all fields compared with simple baselines, and tokens with a uniform grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matey import metrics
from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.evaluation import Evaluation, one_of, side_by_side
from matey.evaluate.forecaster import Cost
from matey.evaluate.records import CORRELATION_TIME, LEAST_CORRELATION, PERSISTENCE, TRUTH, Record
from matey.evaluate.rollout import Beyond
from matey.evaluate.spectra import POWER
from matey.physics import measure
from matey.report.page import definitions, heading, paragraph, table
from matey.text_table import text_table


def summary_records(records: Sequence[Record]) -> list[Record]:
    """Select, per system, the mean over the fields at each lead and at the last step of each kind of rollout."""
    overall = [record for record in records if record.field == ALL_FIELDS]
    last = {(record.system, record.kind): record.lead for record in overall}
    chosen = [record for record in overall if not record.is_rollout or record.lead == last[record.system, record.kind]]
    systems = list(dict.fromkeys(record.system for record in records))
    return sorted(chosen, key=lambda record: (systems.index(record.system), record.kind, record.lead))


def forecast_text(record: Record) -> str:
    """Return the length and kind of a forecast: ``lead 5``, ``rollout 10`` or ``rollout 10 by 5``."""
    how, _, step = record.kind.partition(" by ")
    return f"{how} {record.lead} by {step}" if step else f"{how} {record.lead}"


def error_text(error: float) -> str:
    """Format an error, see `matey.metrics.error_text`; an error that is not finite means a forecast that blew up."""
    return metrics.error_text(error) if math.isfinite(error) else "diverged"


def baseline_cells(record: Record) -> tuple[str, str]:
    """Format the errors of persistence and of extrapolation."""
    return error_text(record.persistence_nrmse), error_text(record.extrapolation_nrmse)


def ratio_text(record: Record) -> str:
    """Format the ratio to persistence."""
    return f"{record.ratio:.3f}" if math.isfinite(record.ratio) else "-"


def worth_text(record: Record) -> str:
    """Format the tokens' worth."""
    return f"{record.tokens_worth:.2f}" if math.isfinite(record.tokens_worth) else "-"


def spread_cells(record: Record) -> tuple[str, str, str]:
    """Format the errors of the best and the worst trajectory, and the end of the worst one's path.

    The errors are dashes if the trajectories of windows were not recorded.
    """
    if not record.worst:
        return "-", "-", ""
    *_, name = record.worst.rpartition("/")
    return error_text(record.best_trajectory), error_text(record.worst_trajectory), name


def seams_text(record: Record) -> str:
    """Format the ratio of jumps across the borders of patches to jumps inside."""
    return f"{record.seams:.2f}" if math.isfinite(record.seams) else "-"


def cost_cells(cost: Cost) -> tuple[str, str, str, str]:
    """Format the tokens, those of the uniform grid, their ratio, and the time; peers have no tokens."""
    counts = (f"{cost.tokens:.1f}", f"{cost.uniform_tokens:.0f}", f"{cost.share:.1%}")
    time = f"{cost.seconds:.2f} s" if cost.seconds >= 1 else f"{1000 * cost.seconds:.3g} ms"
    return (*(("-", "-", "-") if math.isnan(cost.tokens) else counts), time)


def summary_text(evaluation: Evaluation, label: str = "MATEY") -> str:
    """Format the summary as plain tables, with the kind of the model above its numbers."""
    errors = [
        (
            record.system,
            forecast_text(record),
            error_text(record.nrmse),
            *baseline_cells(record),
            ratio_text(record),
            seams_text(record),
            str(record.num_windows),
        )
        for record in summary_records(evaluation.records)
    ]
    costs = [(cost.system, *cost_cells(cost)) for cost in evaluation.costs]
    head = ("NRMSE", "", label, "persistence", "extrapolation", "ratio", "seams", "windows")
    tables = [text_table(head, errors, num_text=2, merge=1), _worth_table(evaluation.records)]
    tables.append(text_table(("tokens per sample", label, "uniform fine", "share", "time"), costs))
    return "\n\n".join(filter(None, tables))


def _worth_table(records: Sequence[Record]) -> str:
    """Format the tokens' worth, a row for each system; no table for a model without tokens."""
    chosen = [record for record in summary_records(records) if not math.isnan(record.tokens_worth)]
    if not chosen:
        return ""
    found = {(record.system, forecast_text(record)): worth_text(record) for record in chosen}
    systems, forecasts = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    rows = [(system, *(found.get((system, forecast), "-") for forecast in forecasts)) for system in systems]
    return text_table(("tokens' worth", *forecasts), rows)


READING = (
    "NRMSE: error over the size of the field, 0.01 is 1 %. persistence: the last frame again. ratio: NRMSE over\n"
    "persistence's, below 1 is better. seams: jumps of the error at patch borders, 1 is none. tokens' worth: NRMSE\n"
    "without what tokens contribute over that with it, 1 is nothing. docs/evaluation.md says more."
)
"""Legend of the numbers in `summary_text`."""


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
