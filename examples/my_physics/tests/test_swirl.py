import torch

from matey import FieldBatch
from matey.evaluate.records import ErrorSums


def test_the_record_over_all_fields_has_that_of_forecast_and_truth():
    last = torch.rand(2, 2, 1, 4, 4) + 1
    batch = FieldBatch("vortex", ("velocity_x", "velocity_y"), last[:, None], torch.ones(2))
    sums = ErrorSums()
    sums.add(batch, "lead", 1, 2 * last, last)
    physics = sums.records()[-1].physics
    assert (physics["swirl"], physics["truth_swirl"]) == (4, 1)
