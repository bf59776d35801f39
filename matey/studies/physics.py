"""The physics of forecasts in the tables of studies: the final values of each model's rollouts and of the truth, by system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from matey.evaluate.physics import CORRELATION_TIME, TRUTH
from matey.evaluate.records import PERSISTENCE, Record
from matey.evaluate.spectra import POWER
from matey.physics import MEASURES
from matey.report.physics import label_of
from matey.report.summary import forecast_text
from matey.studies.folder import Row
from matey.studies.seeds import mean_and_deviation
from matey.text_table import text_table

MEASURED = (*MEASURES.own, *POWER)
WINDOWS = "persistence_nrmse"  # by which windows are told apart: other ones have another error of persistence
COLUMNS = (CORRELATION_TIME, PERSISTENCE + CORRELATION_TIME, *(t + name for name in MEASURED for t in ("", TRUTH)))


def row_of(record: Record) -> Row:
    """Return a record's system, forecast, errors and physics in the columns that all rows of a study have.

    Missing measures of physics are NaN.
    """
    return {
        "system": record.system,
        "forecast": forecast_text(record),
        "nrmse": record.nrmse,
        "persistence_nrmse": record.persistence_nrmse,
        "ratio": record.ratio,
        "num_windows": record.num_windows,
        **{name: record.physics.get(name, math.nan) for name in COLUMNS},
    }


def physics_text(rows: Sequence[Row], model_of: Callable[[Row], str]) -> str:
    """Format each system's measures at the end of the rollouts in the longest steps: means over the seeds, and the truth's.

    Models that are scored on other windows, as those of a longer history, have a table with a truth of their own.

    Args:
        rows: rows of finished points, with system, forecast and the columns of `row_of`.
        model_of: function that names the model of a row.
    """
    texts = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system and row["forecast"].startswith("rollout")]
        own = [row for row in own if row["forecast"] == own[-1]["forecast"]]
        while own:
            error = own[0][WINDOWS]
            alike = [row for row in own if not abs(row[WINDOWS] - error) > 1e-4 * error]
            texts.append(_table(alike, model_of))
            own = [row for row in own if row not in alike]
    return "\n\n".join(texts)


def _table(rows: Sequence[Row], model_of: Callable[[Row], str]) -> str:
    known = [name for name in MEASURED if any(math.isfinite(row[TRUTH + name]) for row in rows)]
    head = (f"{rows[0]['system']}, {rows[0]['forecast']}", label_of(CORRELATION_TIME), *map(label_of, known))
    lines = [["truth", "", *(_mean(rows, TRUTH + name) for name in known)]] if known else []
    lines += [["persistence", _time(rows[:1], PERSISTENCE + CORRELATION_TIME), *("" for _ in known)]]
    for model in dict.fromkeys(map(model_of, rows)):
        of_model = [row for row in rows if model_of(row) == model]
        lines.append([model, _time(of_model, CORRELATION_TIME), *(_mean(of_model, name) for name in known)])
    return text_table(head, lines)


def _mean(rows: Sequence[Row], name: str) -> str:
    mean = fmean(row[name] for row in rows)
    return f"{mean:.2g}" if math.isfinite(mean) else "diverged"


def _time(rows: Sequence[Row], name: str) -> str:
    """Return mean and deviation of correlation times; rollouts above the threshold to their end give only a lower bound."""
    end = int(rows[0]["forecast"].split()[1])
    times = [row[name] if math.isfinite(row[name]) else end for row in rows]
    return f"{'> ' * (not all(math.isfinite(row[name]) for row in rows))}{mean_and_deviation(times)}"
