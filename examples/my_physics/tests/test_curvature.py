import torch

from matey import FieldBatch, MateyConfig, MateyModel
from matey.config.schema import LOSSES
from matey.model.sequence_group import SequenceGroup
from matey.train.loss import errors_of


def test_the_loss_from_boxes_is_that_of_the_whole_frame():
    torch.manual_seed(0)
    fields = torch.rand(2, 4, 1, 1, 24, 16, dtype=torch.float64)
    batch = FieldBatch(
        "plate", ("temperature",), fields[:, :3], torch.ones(2), fields[:, 3], periodic=(False, True, False)
    )
    model = MateyModel(
        MateyConfig(["temperature"], {"patches": [[1, 1, 8, 8]]}, history=3, width=24, num_blocks=1)
    ).double()
    torch.nn.init.normal_(model.cells_after.field_out)
    (forecast,), loss = model([batch]), LOSSES["curvature"]
    (from_boxes,) = errors_of([forecast], SequenceGroup(), loss)
    assert torch.allclose(from_boxes, loss.of_frame(forecast.field(), batch))
