"""The nouns that data and model share."""

import pytest
import torch

from matey import FieldBatch


def test_shapes_that_contradict_each_other_are_refused():
    history = torch.zeros(2, 3, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="holds 1 fields, but 2 are named"):
        FieldBatch("s", ("a", "b"), history, torch.ones(2))
    with pytest.raises(ValueError, match=r"lead_time must be \(2,\)"):
        FieldBatch("s", ("a",), history, torch.ones(3))
    with pytest.raises(ValueError, match=r"target must be \(2, 1, 1, 8, 8\)"):
        FieldBatch("s", ("a",), history, torch.ones(2), torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\(b, t, f, z, y, x\)"):
        FieldBatch("s", ("a",), torch.zeros(2, 3, 1, 8, 8), torch.ones(2))
