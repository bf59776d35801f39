"""Splits patches where neighbouring cells differ most."""

import torch

from matey.tokens.criteria import patch_mean


def steepness(fields, covered, patch):
    slopes = torch.zeros_like(fields)
    for axis in (3, 4, 5):
        if fields.shape[axis] > 1:
            slopes += torch.gradient(fields, dim=axis)[0].square()
    return patch_mean(slopes, covered, patch)
