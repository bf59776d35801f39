"""The kinds of peers, the facts about a trained peer, and how a peer is made from its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from matey.config.schema import Count
from matey.config.section import BoundedText, FieldName, Section
from matey.peers.networks import FourierOperator, NetworkPeer, ResNet, SmallU, UNet
from matey.peers.stencil import StencilPeer

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
