"""A Fourier neural operator (Li et al. 2020, arXiv:2010.08895) of about 0.6 million parameters, from neuraloperator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matey.mistakes import Mistake
from matey.peers.inputs import num_conditions, num_maps

MODES = (16, 16)
WIDTH = 24


class FourierOperator(nn.Module):
    """The package's FNO with the conditions as constant maps beside the fields; it predicts persistence before training.

    Args:
        num_frames: number of frames of history.
        num_fields: number of fields of its one system.
        modes: Fourier modes kept along ``y`` and ``x``.
        width: channels.

    Raises:
        Mistake: neuraloperator is not installed.
    """

    def __init__(self, num_frames: int, num_fields: int, modes: Sequence[int] = MODES, width: int = WIDTH) -> None:
        super().__init__()
        channels = num_maps(num_frames, num_fields) + num_conditions(num_fields)
        self.network = fno_class()(
            tuple(modes), in_channels=channels, out_channels=num_fields, hidden_channels=width, n_layers=4
        )
        projection: Any = self.network.projection
        last = projection.fcs[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Predict the change ``(b, f, y, x)`` from maps ``(b, t f, y, x)`` and conditions ``(b, k)``."""
        constant = conditions[..., None, None].expand(-1, -1, *maps.shape[-2:])
        return self.network(torch.cat([maps, constant], dim=1))


def fno_class() -> Callable[..., nn.Module]:
    """Return the package's class, imported on use.

    Raises:
        Mistake: the package is not installed.
    """
    try:
        from neuralop.models import FNO
    except ImportError:
        raise Mistake("The FNO among the peers needs neuraloperator: pip install 'matey-pde[baselines]'.") from None
    return FNO
