"""Reads ``metrics.jsonl`` line by line; a line damaged by a crash, a full disk or an editor is skipped and counted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MetricsLog:
    """The lines of a log that hold the metrics of a step.

    Attributes:
        lines: the lines in the order of the file, each as its text and as the object it holds.
        num_damaged: number of lines that are not an object with a whole number ``step``.
    """

    lines: list[tuple[str, dict[str, Any]]]
    num_damaged: int = 0

    def note(self, path: Path) -> str:
        """Return a sentence on corrupt lines; empty if there are none."""
        if not self.num_damaged:
            return ""
        lines = "1 corrupt line is" if self.num_damaged == 1 else f"{self.num_damaged} corrupt lines are"
        return f"{path}: {lines} skipped."


def read_metrics(path: Path) -> MetricsLog:
    """Read the lines of a run's ``metrics.jsonl``; none if there is no file."""
    if not path.is_file():
        return MetricsLog([])
    texts = path.read_bytes().split(b"\n")
    texts = [text for text in texts if text.strip()]
    lines = [line for line in map(_parse, texts) if line is not None]
    return MetricsLog(lines, len(texts) - len(lines))


def best_validation(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the line of the best validation, None without any; those before a change of what is validated do not count."""
    alike = [line for line in validations if line.get("chosen_by") == validations[-1].get("chosen_by")]
    errors = [math.inf if math.isnan(line["valid_nrmse"]) else line["valid_nrmse"] for line in alike]
    return alike[errors.index(min(errors))] if alike else None


def _parse(text: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        line = json.loads(text.decode("utf-8"))
    # Not text, not JSON, an integer of thousands of digits (all ValueError), or nested beyond Python's stack.
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or not 0 <= line["step"] < 2**63:
        return None
    return text.decode("utf-8"), {name: value for name, value in line.items() if value is not None}
