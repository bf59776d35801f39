"""The few numbers to look at first: errors over all fields beside persistence, and tokens beside a uniform grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matey.evaluate.costs import Cost
from matey.evaluate.evaluation import Evaluation
from matey.evaluate.records import ALL_FIELDS, Record


def summary_records(records: Sequence[Record]) -> list[Record]:
    """Select, per system, the mean over the fields at each lead and at the last step of the rollout."""
    overall = [record for record in records if record.field == ALL_FIELDS]
    steps = {record.system: record.lead for record in overall if record.kind == "rollout"}
    chosen = [record for record in overall if record.kind == "lead" or record.lead == steps[record.system]]
    systems = list(dict.fromkeys(record.system for record in records))
    return sorted(chosen, key=lambda record: (systems.index(record.system), record.kind, record.lead))


def error_text(error: float) -> str:
    """Format an error with four digits; one that is not finite is that of a forecast that blew up."""
    if not math.isfinite(error):
        return "diverged"
    return f"{error:.4f}" if error < 1000 else f"{error:.3g}"


def ratio_text(record: Record) -> str:
    """Format the ratio to persistence."""
    return f"{record.ratio:.3f}" if math.isfinite(record.ratio) else "-"


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
    lines = [f"{'NRMSE':{width}}{'':14}{'MATEY':>10}{'persistence':>14}{'ratio':>9}{'seams':>8}{'windows':>10}"]
    lines.append("-" * len(lines[0]))
    previous = None
    for record in records:
        system = "" if record.system == previous else record.system
        previous = record.system
        lines.append(
            f"{system:{width}}{record.kind + ' ' + str(record.lead):14}{error_text(record.nrmse):>10}"
            f"{error_text(record.persistence_nrmse):>14}{ratio_text(record):>9}{seams_text(record):>8}{record.num_windows:>10}"
        )
    head = f"{'tokens per sample':{width}}{'':14}{'MATEY':>10}{'uniform fine':>14}{'share':>9}{'time':>10}"
    lines += ["", head, "-" * len(head), *(_cost_line(cost, width) for cost in evaluation.costs)]
    return "\n".join(lines)


def _cost_line(cost: Cost, width: int) -> str:
    return (
        f"{cost.system:{width}}{'':14}{cost.tokens:>10.1f}{cost.uniform_tokens:>14.0f}{cost.share:>9.1%}"
        f"{seconds_text(cost.seconds):>10}"
    )
