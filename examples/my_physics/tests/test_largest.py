import json

import torch

from matey import FieldBatch
from matey.evaluate.records import ErrorSums, read_records, write_records


def test_every_record_of_an_evaluation_has_it(tmp_path):
    target = torch.arange(16.0).view(1, 1, 1, 4, 4)
    batch = FieldBatch("plate", ("temperature",), target[:, None] + 15, torch.ones(1))
    sums = ErrorSums()
    sums.add(batch, "lead", 1, target + 7.5, target)
    write_records(sums.records(), tmp_path / "metrics.json")
    row = json.loads((tmp_path / "metrics.json").read_text())[0]
    assert (row["largest"], row["persistence_largest"]) == (0.5, 1.0)
    assert read_records(tmp_path / "metrics.json")[0].errors["largest"] == 0.5
