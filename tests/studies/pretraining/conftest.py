"""Rows of the smallest study of adaptivity."""

import json
from dataclasses import fields

import pytest

from matey.studies.pretraining.costs import Costs
from matey.studies.pretraining.rows import rows_of
from tests.support.study_rows import TABLE, record


@pytest.fixture
def rows(tmp_path):
    """Two seeds of each case on two systems; the uniform 16 has twice the error of the others."""
    found = []
    for point in TABLE.points(2):
        factor = (2 if point.case.label == "16" else 1) * (1 + point.seed)
        records = [
            record(system, lead, factor * lead * e) for system, e in (("a", 0.01), ("b", 0.04)) for lead in (1, 5)
        ]
        (tmp_path / "metrics.json").write_text(json.dumps(records))
        known = dict.fromkeys((each.name for each in fields(Costs)), 10.0) | {
            "message_calls": 0.0,
            "message_bytes": 0.0,
        }
        is_coarse = point.case.label == "16"
        costs = known | {"step_seconds": (0.1 if is_coarse else 0.4) + 0.02 * point.seed}
        costs["forecast_seconds"] = 0.1 if is_coarse else 0.2
        (tmp_path / "costs.json").write_text(json.dumps(costs))
        found += rows_of(point, 50, tmp_path, tmp_path / "costs.json")
    return found
