"""The few numbers to look at first: errors over all fields beside simple baselines, and tokens beside a uniform grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matey.evaluate.costs import Cost
from matey.evaluate.evaluation import Evaluation
from matey.evaluate.records import ALL_FIELDS, Record


def summary_records(records: Sequence[Record]) -> list[Record]:
    """Select, per system, the mean over the fields at each lead and at the last step of each kind of rollout."""
    overall = [record for record in records if record.field == ALL_FIELDS]
    last = {(record.system, record.kind): record.lead for record in overall}
    chosen = [record for record in overall if not record.is_rollout or record.lead == last[record.system, record.kind]]
    systems = list(dict.fromkeys(record.system for record in records))
    return sorted(chosen, key=lambda record: (systems.index(record.system), record.kind, record.lead))


def forecast_text(record: Record) -> str:
    """Say how far a forecast went, and how: ``lead 5``, ``rollout 10`` or ``rollout 10 by 5``."""
    how, _, step = record.kind.partition(" by ")
    return f"{how} {record.lead} by {step}" if step else f"{how} {record.lead}"


def error_text(error: float) -> str:
    """Format an error with four digits; one that is not finite is that of a forecast that blew up."""
    if not math.isfinite(error):
        return "diverged"
    return f"{error:.4f}" if error < 1000 else f"{error:.3g}"


def known_text(error: float) -> str:
    """Format the error of a baseline; files of earlier versions do not have it."""
    return "-" if math.isnan(error) else error_text(error)


def ratio_text(record: Record) -> str:
    """Format the ratio to persistence."""
    return f"{record.ratio:.3f}" if math.isfinite(record.ratio) else "-"


def spread_cells(record: Record) -> tuple[str, str, str]:
    """Format the errors of the best and the worst trajectory, and the name of the latter as the end of its path."""
    *_, name = record.worst.rpartition("/")
    return known_text(record.best_trajectory), error_text(record.worst_trajectory), name


def seams_text(record: Record) -> str:
    """Format the jumps across the borders of patches over those inside."""
    return f"{record.seams:.2f}" if math.isfinite(record.seams) else "-"


def seconds_text(seconds: float) -> str:
    """Format a time in s or ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def summary_text(evaluation: Evaluation) -> str:
    """Lay the summary out as two plain tables."""
    records = summary_records(evaluation.records)
    systems = ["NRMSE", *(record.system for record in records)]
    width = max(20, *map(len, systems), *(len(cost.system) for cost in evaluation.costs)) + 2
    head = f"{'MATEY':>9}{'persistence':>13}{'extrapolation':>15}{'ratio':>8}{'seams':>7}{'windows':>9}"
    lines = [f"{'NRMSE':{width}}{'':17}{head}"]
    lines.append("-" * len(lines[0]))
    previous = None
    for record in records:
        system = "" if record.system == previous else record.system
        previous = record.system
        lines.append(
            f"{system:{width}}{forecast_text(record):17}{error_text(record.nrmse):>9}"
            f"{error_text(record.persistence_nrmse):>13}{known_text(record.extrapolation_nrmse):>15}"
            f"{ratio_text(record):>8}{seams_text(record):>7}{record.num_windows:>9}"
        )
    head = f"{'tokens per sample':{width}}{'':17}{'MATEY':>9}{'uniform fine':>13}{'share':>15}{'time':>10}"
    lines += ["", head, "-" * len(head), *(_cost_line(cost, width) for cost in evaluation.costs)]
    return "\n".join(lines)


READING = (
    "NRMSE: error over the size of the field, 0.01 is 1 %. persistence: the last frame again. ratio: NRMSE over\n"
    "persistence's, below 1 is better. seams: jumps of the error at patch borders, 1 is none. docs/evaluation.md says more."
)
"""What the numbers of `summary_text` are, for who meets them first."""


def _cost_line(cost: Cost, width: int) -> str:
    return (
        f"{cost.system:{width}}{'':17}{cost.tokens:>9.1f}{cost.uniform_tokens:>13.0f}{cost.share:>15.1%}"
        f"{seconds_text(cost.seconds):>10}"
    )
