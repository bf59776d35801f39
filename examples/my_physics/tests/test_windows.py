import torch

from matey import FieldBatch, MateyConfig, MateyModel
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize

BATCH = FieldBatch("plate", ("temperature",), torch.rand(2, 3, 1, 1, 32, 32), lead_time=torch.ones(2))


def test_a_token_attends_to_its_window_and_a_block_reaches_beyond_it():
    model = MateyModel(
        MateyConfig(["temperature"], {"patches": [[1, 1, 8, 8]]}, "windows", history=3, width=24, num_blocks=1)
    )
    layout = tokenize([BATCH], model.config.patches, Refinement("threshold", 0.2)).layout
    _, fixed, shifted = (key(layout) for key in model.keys)
    place = layout.band[:, 2:]
    for key in (fixed, shifted):
        together = key[:, None] == key
        assert together.sum(dim=1).max() == 4
        assert ((place[:, None] - place).abs().amax(dim=2)[together] <= 1).all()
    assert not torch.equal(fixed[:, None] == fixed, shifted[:, None] == shifted)
    assert model.predict(BATCH).isfinite().all()
