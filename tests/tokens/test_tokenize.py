"""From fields to tokens."""

import torch

from matey.fields import FieldBatch
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize

PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))


def test_raw_values_decide_what_is_refined_and_tokens_are_normalised_all_the_same():
    history = torch.zeros(1, 2, 2, 1, 32, 32)
    history[:, :, 0, :, 2:6, 2:6] = 1
    history[:, :, 1, :, 18:22, 18:22] = 1e5
    batch = FieldBatch("gas", ("density", "pressure"), history, torch.tensor([1]), history[:, -1])
    split = {}
    for values in ("normalised", "raw"):
        tokens = tokenize([batch], PATCHES, Refinement("threshold", 0.5, values=values))
        fine = tokens.layout.place[tokens.layout.level == 1] // 2
        split[values] = fine.unique(dim=0).tolist()
        normalised = tokens.normalisations[0].apply(history)
        assert torch.allclose(normalised.var(dim=(1, 3, 4, 5), correction=0), torch.ones(1, 2))
    assert split == {"normalised": [[0, 0, 0], [0, 2, 2]], "raw": [[0, 2, 2]]}
