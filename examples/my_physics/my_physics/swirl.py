"""Kinetic energy of a frame over that of the last known one."""

import torch

from matey.physics import CELLS, Measure, components_of


def sums(frame, batch):
    components = components_of("velocity", batch)
    if components is None:
        return None
    index = [batch.fields.index(name) for name in components.values()]
    return torch.stack([frame[:, index].double().square().sum(dim=(1, *CELLS))], dim=1)


SWIRL = Measure(
    "kinetic energy", "Over that of the last known frame.", sums, lambda now, before: now[:, 0] / before[:, 0]
)
