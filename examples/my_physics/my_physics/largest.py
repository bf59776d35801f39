"""The largest error of any cell, over the range of the true field."""

from matey.metrics import CELLS, Metric


def largest_error(prediction, target):
    return (prediction - target).abs().amax(dim=CELLS) / (target.amax(dim=CELLS) - target.amin(dim=CELLS))


LARGEST = Metric("largest error", "Largest error of any cell over the range of the true field.", largest_error)
