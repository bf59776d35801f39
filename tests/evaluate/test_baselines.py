import torch

from matey import FieldBatch
from matey.evaluate.records import extrapolation


def batch_of(*frames):
    history = torch.tensor(frames, dtype=torch.float32)[None, :, None, None, None, None].expand(2, -1, 1, 1, 4, 4)
    return FieldBatch("gas", ("density",), history, torch.ones(2))


def test_extrapolation_is_exact_where_every_cell_changes_steadily():
    for lead in (1, 2, 7):
        assert torch.equal(extrapolation(batch_of(9, 1, 4), lead), batch_of(4 + 3 * lead).last)


def test_a_single_frame_shows_no_change_to_extrapolate():
    assert torch.equal(extrapolation(batch_of(4), 5), batch_of(4).last)
