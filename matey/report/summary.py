"""The summary of an evaluation: errors over all fields compared with simple baselines, and tokens with a uniform grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matey import metrics
from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.costs import Cost
from matey.evaluate.evaluation import Evaluation
from matey.evaluate.records import Record
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
