"""The models that MATEY is compared with: a ResNet, a small U with it on its cells, a U-Net and an FNO; a stencil is beside.

Each maps `PeerInputs` to the change of every field, and predicts persistence before it is trained.

Inputs and outputs are scaled as for MATEY, so that the comparison is fair. Fields are normalised per sample over the history.
The inputs are the last frame and the changes that led to it, in units of the size of the last change. The lead time and the
scales that normalisation removes are conditions. The output is the change of each field in units of the last change times the
lead time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from matey.config.schema import Count
from matey.config.section import BoundedText, FieldName, Section
from matey.fields import FieldBatch, without_gaps
from matey.mistakes import Mistake
from matey.peers.stencil import StencilPeer
from matey.tokens.normalisation import Normalisation, normalisation_of

CHANNELS = 24
NUM_BLOCKS = 2
HIDDEN = 32
COARSE, WIDTH, NUM_COARSE = 4, 64, 6


class ResNet(nn.Module):
    """A residual network (He et al. 2015, arXiv:1512.03385) of some 30 thousand parameters, on the grid of the fields.

    An MLP of the conditions scales and shifts the result of each convolution, channel by channel. A map of 5 x 5 cells that is
    linear in the fields is added to the blocks. Walls are padded with the last cell, periodic axes with their other end. The
    last layers are zero at first, so that the network predicts persistence.

    Args:
        num_frames: number of frames of history.
        num_fields: number of fields of its one system.
        channels: number of channels of the blocks.
    """

    def __init__(self, num_frames: int, num_fields: int, channels: int = CHANNELS) -> None:
        super().__init__()
        num_inputs = num_maps(num_frames, num_fields)
        self.expand = nn.Sequential(nn.Linear(num_conditions(num_fields), HIDDEN), nn.GELU())
        self.first = nn.Conv2d(num_inputs, channels, 5)
        self.blocks = nn.ModuleList([nn.Conv2d(channels, channels, 3) for _ in range(2 * NUM_BLOCKS)])
        self.modulate = nn.Linear(HIDDEN, 2 * channels * (1 + 2 * NUM_BLOCKS))
        self.out = nn.Conv2d(channels, num_fields, 3)
        self.linear = nn.Conv2d(num_inputs, num_fields, 5)
        self.scale = nn.Linear(HIDDEN, num_fields)
        for layer in (self.modulate, self.out, self.linear, self.scale):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Predict the change ``(b, f, y, x)`` from maps ``(b, t f, y, x)`` and conditions ``(b, k)``."""

        def padded(values: Tensor, reach: int) -> Tensor:
            return pad_plane(values, (reach, reach), (reach, reach), periodic, walls="replicate")

        conditions = self.expand(conditions)
        scales = self.modulate(conditions)[..., None, None].chunk(1 + 2 * NUM_BLOCKS, dim=1)
        (scale, shift), *others = (each.chunk(2, dim=1) for each in scales)
        values = self.first(padded(maps, 2)) * (1 + scale) + shift
        for number in range(0, 2 * NUM_BLOCKS, 2):
            inside = F.gelu(values)
            for layer, (scale, shift) in zip(
                self.blocks[number : number + 2], others[number : number + 2], strict=True
            ):
                added = layer(padded(inside, 1)) * (1 + scale) + shift
                inside = F.gelu(added)
            values = values + added
            if number == 0:
                values = self.between(values, maps, conditions, periodic)
        linear: Tensor = self.linear(padded(maps, 2)) * (1 + self.scale(conditions)[..., None, None])
        return linear + self.out(padded(F.gelu(values), 1))

    def between(self, values: Tensor, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Return the features ``(b, c, y, x)`` that the second block takes, from those of the first."""
        return values


class SmallU(ResNet):
    """A `ResNet` with residual convolutions of 3 x 3 coarse cells, of 4 x 4 cells each, between its two blocks.

    They begin with a map of the features and inputs of these cells, and of the conditions. What they find is interpolated
    linearly and added to the features of the cells; it is zero at first.
    """

    def __init__(self, num_frames: int, num_fields: int) -> None:
        super().__init__(num_frames, num_fields)
        self.down = nn.Conv2d(CHANNELS + num_maps(num_frames, num_fields), WIDTH, COARSE, stride=COARSE)
        self.told = nn.Linear(HIDDEN, WIDTH)
        self.coarse = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 3) for _ in range(NUM_COARSE)])
        self.up = nn.Conv2d(WIDTH, CHANNELS, 1)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        nn.init.zeros_(self.up.bias)

    def between(self, values: Tensor, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Add what coarse cells find; a grid that they do not divide is padded for them."""
        y, x = values.shape[-2:]
        beyond = (-y % COARSE, -x % COARSE)
        seen = pad_plane(torch.cat([values, maps], dim=1), (0, 0), beyond, periodic, walls="replicate")
        found = self.down(seen) + self.told(conditions)[..., None, None]
        for layer in self.coarse:
            found = found + layer(pad_plane(F.gelu(found), (1, 1), (1, 1), periodic, walls="replicate"))
        # A coarse cell beyond each end, so that also there it is interpolated across a periodic one.
        wide = pad_plane(self.up(found), (1, 1), (1, 1), periodic, walls="replicate")
        fine = F.interpolate(wide, scale_factor=COARSE, mode="bilinear", align_corners=False)
        return values + fine[..., COARSE : COARSE + y, COARSE : COARSE + x]


WIDTHS = (16, 32, 64, 128, 160)
"""Number of channels from the finest to the coarsest grid; each grid has half the cells a side of the one before."""


class UNet(nn.Module):
    """A plain U-Net (Ronneberger et al. 2015, arXiv:1505.04597) of about 1.4 million parameters.

    It has two convolutions per level on the way down and two on the way up, with the levels of equal size joined.

    An MLP of the conditions scales and shifts the first result of each pair of convolutions, channel by channel. Walls are
    padded with zeros, periodic axes with their other end. The last layer is zero at first, which predicts persistence.

    Args:
        num_frames: number of frames of history.
        num_fields: number of fields of its one system.
        widths: number of channels of each level.
    """

    def __init__(self, num_frames: int, num_fields: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        hidden = 64
        self.expand = nn.Sequential(nn.Linear(num_conditions(num_fields), hidden), nn.GELU())
        inputs = (num_maps(num_frames, num_fields), *widths)
        self.down = nn.ModuleList([Pair(a, b, hidden) for a, b in zip(inputs, widths, strict=False)])
        self.up = nn.ModuleList(
            [Pair(fine + coarse, fine, hidden) for fine, coarse in zip(widths, widths[1:], strict=False)]
        )
        self.out = nn.Conv2d(widths[0] + inputs[0], num_fields, 3)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Predict the change ``(b, f, y, x)`` from maps ``(b, t f, y, x)`` and conditions ``(b, k)``."""
        size = maps.shape[-2:]
        # A grid that the levels do not divide is padded, and the padding is cut away at the end.
        first = maps = pad_plane(maps, (0, 0), [-cells % self.factor for cells in size], periodic)
        conditions = self.expand(conditions)
        levels: list[Tensor] = []
        for pair in self.down:
            maps = pair(F.avg_pool2d(levels[-1], 2) if levels else maps, conditions, periodic)
            levels.append(maps)
        for pair, fine in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            maps = pair(torch.cat([fine, F.interpolate(maps, scale_factor=2)], dim=1), conditions, periodic)
        joined = pad_plane(torch.cat([first, maps], dim=1), (1, 1), (1, 1), periodic)
        return self.out(joined)[..., : size[0], : size[1]]


class Pair(nn.Module):
    """Two convolutions of 3 x 3 cells; the first is normalised over groups of channels."""

    def __init__(self, num_inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, width, 3)
        self.second = nn.Conv2d(width, width, 3)
        self.norm = nn.GroupNorm(4, width)
        self.modulate = nn.Linear(hidden, 2 * width)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Map ``(b, c, y, x)`` to as many cells with other channels."""
        scale, shift = self.modulate(conditions)[..., None, None].chunk(2, dim=1)
        maps = self.norm(self.first(pad_plane(maps, (1, 1), (1, 1), periodic)))
        maps = F.gelu(maps * (1 + scale) + shift)
        return F.gelu(self.second(pad_plane(maps, (1, 1), (1, 1), periodic)))


MODES = (16, 16)


class FourierOperator(nn.Module):
    """A Fourier neural operator (Li et al. 2020, arXiv:2010.08895) of about 0.6 million parameters, from neuraloperator.

    The conditions are constant maps beside the fields. Before training it predicts persistence.

    Args:
        num_frames: number of frames of history.
        num_fields: number of fields of its one system.
        modes: Fourier modes kept along ``y`` and ``x``.
        width: channels.

    Raises:
        Mistake: neuraloperator is not installed.
    """

    def __init__(self, num_frames: int, num_fields: int, modes: Sequence[int] = MODES, width: int = 24) -> None:
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


Kind = Literal["stencil", "ResNet", "small U", "U-Net", "FNO"]
Peer = StencilPeer | NetworkPeer
PEERS: tuple[Kind, ...] = ("stencil", "ResNet", "small U", "U-Net", "FNO")
NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "ResNet": ResNet,
    "small U": SmallU,
    "U-Net": UNet,
    "FNO": FourierOperator,
}
"""The networks by kind; they are made from the number of frames of history and the number of fields."""


class PeerFacts(Section):
    """Kind, system and inputs of a trained peer.

    Attributes:
        kind: kind of the model.
        system: name of the only system that it was trained on.
        fields: the fields of that system, in the order in which the peer takes them.
        history: number of frames of history that it takes.
        lead_max: longest lead time in snapshots that it was trained on.
    """

    kind: Kind
    system: BoundedText
    fields: Annotated[tuple[FieldName, ...], Field(min_length=1, max_length=10_000)]
    history: Count
    lead_max: Count


def untrained(kind: str, num_frames: int, num_fields: int) -> Peer:
    """Return a peer that is not trained.

    Raises:
        Mistake: the package of the network is not installed.
    """
    return NetworkPeer(NETWORKS[kind](num_frames, num_fields)) if kind in NETWORKS else StencilPeer()


def weights_of(peer: Peer) -> dict[str, Tensor]:
    """Return the trained weights of a peer by name; the names of a stencil's weights are its lead times."""
    if isinstance(peer, StencilPeer):
        return {str(lead): weight for lead, weight in peer.weights.items()}
    return peer.weights


def with_weights(facts: PeerFacts, weights: Mapping[str, Tensor]) -> Peer:
    """Return the peer with these trained weights, on the CPU.

    Raises:
        Mistake: the package of the network is not installed.
        ValueError: the weights do not fit such a peer.
    """
    peer = untrained(facts.kind, facts.history, len(facts.fields))
    if isinstance(peer, StencilPeer):
        if not weights or any(weight.ndim != 2 or weight.shape[1] != len(facts.fields) for weight in weights.values()):
            raise ValueError(f"they are not those of a stencil on {len(facts.fields)} fields")
        return StencilPeer({int(lead): weight.double() for lead, weight in weights.items()})
    own = peer.weights
    if {name: weight.shape for name, weight in own.items()} != {name: w.shape for name, w in weights.items()}:
        raise ValueError(f"they are not those of a {facts.kind} on {len(facts.fields)} fields")
    for name, weight in own.items():
        weight.copy_(weights[name])
    return peer
