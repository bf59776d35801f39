"""Small batches and models, and samples as plans count them."""

from dataclasses import replace

import torch

from matey import FieldBatch, MateyConfig, MateyModel
from matey.config.schema import TokensSection
from matey.peers.networks import untrained
from matey.planning.workload import Sample
from matey.tokens.tokenize import tokenize

VOCABULARY = ("water_height", "activator", "inhibitor")
PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))  # for grids of 16 by 16


def make_batch(
    system="shallow_water",
    fields=("water_height",),
    num_samples=2,
    frames=2,
    grid=(1, 32, 32),
    seed=0,
    dtype=torch.float32,
) -> FieldBatch:
    """A batch with one sharp bump per sample on a smooth, slightly noisy background."""
    random = torch.Generator().manual_seed(seed)
    z, y, x = grid
    yy, xx = torch.meshgrid(torch.linspace(0, 1, y), torch.linspace(0, 1, x), indexing="ij")
    centre = torch.rand(num_samples, 1, 1, 1, 1, 1, 2, generator=random)
    bump = torch.exp(-80 * ((yy - centre[..., 0]) ** 2 + (xx - centre[..., 1]) ** 2))
    noise = 0.01 * torch.randn(num_samples, frames + 1, len(fields), z, y, x, generator=random)
    drift = 1 + 0.1 * torch.arange(frames + 1)[None, :, None, None, None, None]
    values = (3 + bump * drift + noise).to(dtype)
    lead_time = torch.randint(1, 5, (num_samples,), generator=random)
    return FieldBatch(system, tuple(fields), values[:, :-1], lead_time, values[:, -1])


def with_gaps(batch, gaps):
    """The batch without data in the cells ``(..., z, y, x)`` that a mask marks."""
    target = None if batch.target is None else batch.target.masked_fill(gaps, torch.nan)
    return replace(batch, history=batch.history.masked_fill(gaps, torch.nan), target=target)


def make_config(patches, **kwargs) -> MateyConfig:
    """The configuration of a small model; `kwargs` are settings of `MateyConfig` and of its tokens."""
    tokens = {"set": "mix" if len(patches) > 1 else "uniform", "patches": patches, "refine": 0.3}
    tokens |= {key: kwargs.pop(key) for key in TokensSection.model_fields.keys() & kwargs.keys()}
    settings = {"history": 2, "num_heads": 3, "width": 24, "num_blocks": 2, "channels": 6, "maps": 1, "rotary": True}
    return MateyConfig(**{"fields": VOCABULARY, "tokens": tokens, **settings, **kwargs})


def make_model(patches=((1, 1, 16, 16), (1, 1, 4, 4)), dtype=torch.float64, trained=True, **kwargs) -> MateyModel:
    """A small model, see `make_config`; with `trained`, no weight is zero, so that all of it is seen in its forecast."""
    torch.manual_seed(0)
    model = MateyModel(make_config(patches, **kwargs)).to(dtype)
    for parameter in model.parameters() if trained else ():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def network_of(kind, num_fields=1):
    """Return a peer's network for two frames, the same at every call."""
    torch.manual_seed(0)
    return untrained(kind, 2, num_fields)


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
