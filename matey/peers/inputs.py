"""The inputs and outputs of the peer networks, which are scaled as for MATEY, so that the comparison is fair.

Fields are normalised per sample over the history. The inputs are the last frame and the changes that led to it, in units of
the size of the last change. The lead time and the scales that normalisation removes are conditions. The output is the change
of each field in units of the last change times the lead time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matey.fields import FieldBatch, without_gaps
from matey.mistakes import Mistake
from matey.tokens.normalisation import Normalisation, normalisation_of


@dataclass(frozen=True)
class PeerInputs:
    """A batch in the form that networks on a plane take.

    Attributes:
        maps: ``(b, t f, y, x)``: the last frame normalised, then the changes that led to it, the newest first, in units of the
            size of the last one.
        conditions: ``(b, 2 + 3 f)``: the lead time and its logarithm, then for every field the mean over the deviation, and
            the logarithms of the deviation and of the last change over the deviation.
        periodic: whether the plane wraps around along ``y`` and ``x``.
        base: ``(b, f, z, y, x)``, the last frame in physical units.
        scale: ``(b, f)``, the unit of a network's output: the size of the last change times the lead time.
    """

    maps: Tensor
    conditions: Tensor
    periodic: tuple[bool, bool]
    base: Tensor
    scale: Tensor

    def frame(self, change: Tensor) -> Tensor:
        """Return the frame ``(b, f, z, y, x)`` in physical units from a network's output ``(b, f, y, x)``."""
        return self.base + self.scale[..., None, None, None] * change[:, :, None]


def num_maps(num_frames: int, num_fields: int) -> int:
    """Return the number of maps of a history."""
    return num_frames * num_fields


def num_conditions(num_fields: int) -> int:
    """Return the number of conditions of a sample."""
    return 2 + 3 * num_fields


def peer_inputs(batch: FieldBatch) -> PeerInputs:
    """Prepare the histories of a batch; its target is not used.

    Raises:
        Mistake: the batch is three-dimensional.
    """
    if batch.grid[0] > 1:
        raise Mistake(f"{batch.system} has {batch.grid[0]} planes; the peers take two-dimensional data only.")
    statistics = normalisation_of(batch.history)
    frames = without_gaps(statistics.apply(batch.history)[:, :, :, 0])  # (b, t, f, y, x)
    changes = frames.diff(dim=1).flip(1) / (statistics.change / statistics.std)[:, None, :, None, None]
    return PeerInputs(
        maps=torch.cat([frames[:, -1:], changes], dim=1).flatten(1, 2),
        conditions=_conditions(statistics, batch.lead_time),
        periodic=batch.periodic[1:],
        base=batch.last,
        scale=statistics.change * batch.lead_time[:, None],
    )


def _conditions(statistics: Normalisation, lead_time: Tensor) -> Tensor:
    of_fields = statistics.scales().mT.flatten(1) / 2  # (b, 3 f)
    return torch.cat([lead_time[:, None] / 4, lead_time[:, None].log(), of_fields], dim=1)


class NetworkPeer:
    """A network on the plane as a model that predicts frames.

    Args:
        network: network from maps ``(b, t f, y, x)``, conditions and the periodic axes to the change ``(b, f, y, x)``.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> NetworkPeer:
        """Move the weights, and return this peer."""
        self.network.to(device)
        return self

    @property
    def weights(self) -> dict[str, Tensor]:
        """The trained values by name, without gradients, in the memory of the network; complex ones as pairs."""
        own = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return {name: torch.view_as_real(w) if w.is_complex() else w for name, w in own.items()}

    @property
    def num_parameters(self) -> int:
        """Number of trained values; a complex weight counts twice."""
        return sum(weight.numel() for weight in self.weights.values())

    def forecast(self, batch: FieldBatch) -> Tensor:
        """Predict the frame ``(b, f, z, y, x)`` at the batch's lead time, with gradients."""
        inputs = peer_inputs(batch)
        return inputs.frame(self.network(inputs.maps, inputs.conditions, inputs.periodic))

    @torch.no_grad()
    def predict(self, batch: FieldBatch) -> Tensor:
        """Predict the frame ``(b, f, z, y, x)`` at the batch's lead time."""
        self.network.eval()
        return self.forecast(batch.to(self.device))


def pad_plane(
    maps: Tensor, before: Sequence[int], after: Sequence[int], periodic: Sequence[bool], walls: str = "constant"
) -> Tensor:
    """Extend maps ``(b, c, y, x)`` on all sides: a periodic axis by its other end, any other by zeros.

    With ``walls`` of ``replicate``, axes that are not periodic are extended by their last cells.
    """
    for axis, (low, high, wraps) in enumerate(zip(before, after, periodic, strict=True)):
        around = [0, 0, low, high] if axis == 0 else [low, high, 0, 0]
        maps = nn.functional.pad(maps, around, mode="circular" if wraps else walls)
    return maps
