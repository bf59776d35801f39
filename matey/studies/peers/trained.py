"""Trains a peer on the windows of MATEY's own run, and saves it; for all studies that compare MATEY with peers."""

from __future__ import annotations

from pathlib import Path

import torch

from matey.checkpoints.peer_folder import write_peer
from matey.config import RunConfig
from matey.data.seen import seen_text
from matey.evaluate.held_out import HeldOut, hold_out
from matey.peers.kinds import Peer, PeerFacts, untrained
from matey.peers.stencil import StencilPeer
from matey.process.resources import keep_freed_memory
from matey.studies.peers.fitting import check_memory, fit_stencil
from matey.studies.peers.training import Settings, Training, train_network
from matey.train.run_data import loss_scales, open_data

# One learning rate for both of the demo's systems, chosen on the validation part of its data.
SETTINGS = {
    "ResNet": Settings(batch=4, learning_rate=6e-3),
    "small U": Settings(batch=4, learning_rate=4e-3),
    "U-Net": Settings(batch=4, learning_rate=4e-3),
    "FNO": Settings(batch=4, learning_rate=6e-3),
}


def train_peer(kind: str, run: RunConfig, seconds: float, device: str, folder: Path) -> tuple[Peer, HeldOut, Training]:
    """Train a peer for a given cost, and write it into a folder; return it, the test trajectories and the cost.

    Args:
        kind: kind of the peer, one of `matey.peers.kinds.PEERS`.
        run: the run, whose data and seed determine the windows.
        seconds: largest cost in seconds.
        device: the device to train on, ``cpu`` or ``cuda``.
        folder: existing folder in which the peer is saved.

    Raises:
        DataError: the data cannot be read, or does not suit the peer.
    """
    keep_freed_memory()  # as MATEY's training does
    data = open_data(run)
    torch.manual_seed(run.train.seed)
    peer = untrained(kind, run.data.history, len(data.fields)).to(torch.device(device))
    if isinstance(peer, StencilPeer):
        check_memory(data.sets, run.data.lead_max)
        training = fit_stencil(peer, data.mixture, run.data.bad_values, seconds)
    else:
        training = train_network(peer, run, data, loss_scales(run, data), SETTINGS[kind], seconds)
    facts = PeerFacts(
        kind=kind,
        system=data.sets[0].system,
        fields=data.sets[0].fields,
        history=run.data.history,
        lead_max=run.data.lead_max,
    )
    write_peer(folder, peer, facts, data.record, seen_text(data.sets, [split.train for split in data.splits]))
    return peer, hold_out(data.sets, "test", run.data.history, run.data), training
