"""Samples of a batch as plans count them."""

from matey.fields import FieldBatch
from matey.planning.workload import Sample
from matey.tokens.tokenize import tokenize


def samples_of(batch, config):
    """Tokenize every sample of a batch separately."""
    samples = []
    for number in range(batch.num_samples):
        part = slice(number, number + 1)
        single = FieldBatch(batch.system, batch.fields, batch.history[part], batch.lead_time[part])
        layout = tokenize([single], config.patches, config.refinement).layout
        window = (batch.num_frames, *batch.grid)
        given = (0, 0) if batch.given is None else (batch.given.shape[2], batch.given.shape[1])
        samples.append(Sample(batch.system, window, len(batch.fields), layout, *given, periodic=batch.periodic))
    return samples
