"""Texts on the validations of a run: a sentence after each, and at the end a table of the best one with the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matey.checkpoints.metrics_log import best_validation
from matey.checkpoints.run_files import METRICS, MODEL
from matey.config.flags import started_as
from matey.metrics import error_text
from matey.text_table import text_table


def validation_sentence(step: int, numbers: Mapping[str, Any], *, is_best: bool) -> str:
    """Return a line on one validation: NRMSE over all systems, and of each with its ratio to persistence.

    Args:
        step: the step after which the validation was made.
        numbers: errors as `matey.train.validation.validate` returns them.
        is_best: whether it is the best of the run so far.
    """
    persistence = numbers["valid_persistence_by_system"]
    of_systems = [
        f"{system} {error_text(error)} ({_ratio(error, persistence[system])} of persistence)"
        for system, error in numbers["valid_nrmse_by_system"].items()
    ]
    best = ", the best so far" if is_best else ""
    return f"Step {step}: validation NRMSE {error_text(numbers['valid_nrmse'])}{best}; {', '.join(of_systems)}"


def closing(log: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the lines that end a run: its best validation as a table, where its results lie, and how to evaluate it.

    Args:
        log: lines of the run's ``metrics.jsonl``.
        folder: the run's folder.
    """
    lines = []
    if best := best_validation([line for line in log if "valid_nrmse" in line]):
        persistence = best["valid_persistence_by_system"]
        rows = [
            (system, error_text(error), error_text(persistence[system]), _ratio(error, persistence[system]))
            for system, error in best["valid_nrmse_by_system"].items()
        ]
        head = (f"best validation (step {best['step']})", "NRMSE", "persistence", "ratio")
        lines += ["", text_table(head, rows), ""]
    flags = shlex.join(["--checkpoint", str(folder), "--out", str(folder)])
    command = f"{started_as('launch/evaluate.py', 'evaluate')} {flags}"
    lines += [f"Weights: {folder / MODEL}   metrics: {folder / METRICS}", f"Next: {command}"]
    return "\n".join(lines)


def _ratio(error: float, of_persistence: float) -> str:
    return f"{error / of_persistence:.3f}" if of_persistence else "-"
