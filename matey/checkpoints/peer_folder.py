"""The folder of a trained peer, see `matey.peers`: its weights, the facts about it, and its training data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from matey.checkpoints.durable import replace_bytes, replace_text
from matey.checkpoints.run_files import PEER, PEER_WEIGHTS, SEEN, SPLIT, CheckpointError
from matey.checkpoints.trained import read_json
from matey.data.split_record import SplitRecord, read_record, read_seen
from matey.mistakes import one_line
from matey.peers.kinds import Peer, PeerFacts, weights_of, with_weights


@dataclass(frozen=True)
class TrainedPeer:
    """A trained peer and the facts of its training; `matey.checkpoints.trained.Trained` is the same for MATEY.

    Attributes:
        name: name of the peer's folder.
        model: the peer with its weights, on the CPU.
        facts: kind, system and fields of the peer.
        split: the trajectories of each part of the data that the peer was trained on.
        seen: fingerprints of the trajectories in the training part, see `matey.data.split_record`.
    """

    name: str
    model: Peer
    facts: PeerFacts
    split: SplitRecord | None
    seen: frozenset[str]
    run: None = None
    log: tuple[dict[str, Any], ...] = ()
    note: str = ""

    @property
    def num_frames(self) -> int:
        """Number of history frames that the peer takes."""
        return self.facts.history

    @property
    def lead_max(self) -> int:
        """Longest lead time in snapshots that the peer was trained on."""
        return self.facts.lead_max


def write_peer(folder: Path, peer: Peer, facts: PeerFacts, split: SplitRecord, seen: str) -> None:
    """Write a peer; the file that marks a folder as a peer's is written last.

    Args:
        folder: the folder, which exists.
        peer: the trained peer.
        facts: kind, system and fields of the peer.
        split: the trajectories of each part of the data.
        seen: text of `matey.data.split_record.seen_text` for the training trajectories.
    """
    (folder / PEER).unlink(missing_ok=True)
    weights = {name: weight.cpu().contiguous() for name, weight in weights_of(peer).items()}
    replace_bytes(folder / PEER_WEIGHTS, save(weights))
    replace_text(folder / SPLIT, split.text())
    replace_text(folder / SEEN, seen)
    replace_text(folder / PEER, facts.model_dump_json(indent=1) + "\n")


def load_peer(folder: Path) -> TrainedPeer:
    """Load what `write_peer` wrote.

    Raises:
        CheckpointError: a file is missing or corrupt, or some of the weights are not finite.
        DataError: the record of how its data was split is corrupt.
        Mistake: the package with such a network is not installed.
    """
    tree = read_json(folder / PEER)
    try:  # strict JSON: "3" is no number, but a list counts as a tuple
        facts = PeerFacts.model_validate_json(json.dumps(tree), strict=True)
        weights = load_file(folder / PEER_WEIGHTS)
        peer = with_weights(facts, weights)
    except (OSError, ValueError, SafetensorError) as error:
        sentence = one_line(error).removesuffix(".")
        raise CheckpointError(f"The peer in {folder} cannot be used: {sentence}; train it again.") from None
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise CheckpointError(
            f"Weights of the peer in {folder} are NaN or infinite: its training diverged; train it again."
        )
    return TrainedPeer(folder.resolve().name, peer, facts, read_record(folder / SPLIT), read_seen(folder / SEEN))
