"""Loads a trained model from a folder: a run with its configuration and log, a model alone, or a peer, which is written here.

A model folder that is incomplete, needs other code or is not MATEY's is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from matey.checkpoints import run_files
from matey.checkpoints.run_files import CheckpointError
from matey.config import RunConfig, load_config
from matey.config.loading import PlainTextError, find_shipped, parse_json, read_text, shortened
from matey.data.split_record import SplitRecord, read_record, read_seen
from matey.mistakes import one_line
from matey.model.matey import MateyModel
from matey.peers.networks import Peer, PeerFacts, weights_of, with_weights

__all__ = ["CheckpointError", "Trained", "load_trained", "read_log"]


@dataclass(frozen=True)
class Trained:
    """A trained model and the facts of its training.

    Attributes:
        name: name of the run's or the model's folder.
        model: the model with its weights, on the CPU.
        run: the run's configuration; None for a model alone.
        log: lines of the run's ``metrics.jsonl``, by step; empty for a model alone.
        split: the trajectories of each part of the run's data, also for a model whose folder still lies in its run's
            folder; None if they are not recorded.
        seen: fingerprints of the training trajectories, see `matey.data.split_record`; empty if they are not kept.
        card: the model card of a model alone; empty if there is none.
        note: a sentence about what could not be read in the folder, empty if all could.
    """

    name: str
    model: MateyModel
    run: RunConfig | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    split: SplitRecord | None = None
    seen: frozenset[str] = frozenset()
    card: str = ""
    note: str = ""

    facts = None  # only a peer has them, see `matey.checkpoints.trained`

    @property
    def num_frames(self) -> int:
        """Frames of history that the model was trained with."""
        return self.run.data.history if self.run else self.model.config.history

    @property
    def lead_max(self) -> int | None:
        """Longest lead time in snapshots that the model was trained on, if the run or the model card says."""
        if self.run:
            return self.run.data.lead_max
        stated = re.search(r"leads of 1 to (\d+) snapshots", self.card)
        return int(stated[1]) if stated else None


def load_trained(folder: str | Path) -> Trained:
    """Load a run folder (``config.yaml``, ``model/``, ``metrics.jsonl``) or a model folder (``config.json``, weights).

    Raises:
        CheckpointError: there is no such folder, it is neither, or the model in it is corrupt.
        ConfigError: the run's ``config.yaml`` is not a run configuration.
        DataError: the record of how the run split its data is corrupt.
    """
    folder = find_shipped(folder)
    name = folder.resolve().name
    if run_files.is_run(folder):
        metrics = folder / run_files.METRICS
        log = run_files.read_metrics(metrics)
        return Trained(
            name,
            load_model(folder / run_files.MODEL),
            load_config(folder / run_files.CONFIG),
            _by_step(log),
            read_record(folder / run_files.SPLIT),
            read_seen(folder / run_files.SEEN),
            note=log.note(metrics),
        )
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    run = folder.resolve().parent if name == run_files.MODEL else None
    split = None if run is None else read_record(run / run_files.SPLIT)
    seen = read_seen(folder / run_files.SEEN) or (frozenset() if run is None else read_seen(run / run_files.SEEN))
    return Trained(name, load_model(folder), split=split, seen=seen, card=text)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` in the order of steps; where a resumed run logged a step again, the newer line counts.

    Returns:
        one object per training step and per validation; an empty list without the file.
    """
    return _by_step(run_files.read_metrics(path))


def _by_step(log: run_files.MetricsLog) -> list[dict[str, Any]]:
    lines = {(line["step"], "valid_vrmse" in line): line for _, line in log.lines}
    return [lines[key] for key in sorted(lines)]


def load_model(folder: Path) -> MateyModel:
    """Load a model on the CPU; its attention backend is chosen for the device, because results do not depend on it.

    Raises:
        CheckpointError: the model is missing, corrupt, of another kind, or some of its weights are not finite.
    """
    if (kind := read_json(folder / run_files.MODEL_CONFIG).get("model_type")) != MateyModel.config_class.model_type:
        raise CheckpointError(f"{folder} holds a model of type {shortened(kind)}, not 'matey'.")
    try:
        for weights in folder.glob("*.safetensors"):
            weights.open("rb").close()  # Hugging Face calls one that may not be read missing
        model, info = MateyModel.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, attention="auto", local_files_only=True
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        sentence = one_line(error).removesuffix(".")
        raise CheckpointError(f"The model in {folder} cannot be loaded: {sentence}; copy the model again.") from None
    # Hugging Face silently fills weights that are missing or do not fit with random numbers.
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of the weights that config.json asks for are missing from {folder} or have another shape, "
            f"such as {wrong[0]}; take config.json and weights from the same model."
        )
    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise CheckpointError(
            f"{len(bad)} of the weights in {folder} hold NaN or infinity, such as {bad[0]}: its predictions would be "
            f"worthless; take the model of an earlier checkpoint (matey convert)."
        )
    return model


def read_json(path: Path) -> dict[str, Any]:
    """Read a file with a JSON object; raises CheckpointError if it holds none."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}; expected what save_pretrained writes.")
    try:
        tree = parse_json(read_text(path))
    except (OSError, PlainTextError) as error:
        raise CheckpointError(f"{path} is corrupt: it {error}; copy the model again.") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} is corrupt: it holds no JSON object; copy the model again.")
    return tree


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
    (folder / run_files.PEER).unlink(missing_ok=True)
    weights = {name: weight.cpu().contiguous() for name, weight in weights_of(peer).items()}
    run_files.replace_bytes(folder / run_files.PEER_WEIGHTS, save(weights))
    run_files.replace_text(folder / run_files.SPLIT, split.text())
    run_files.replace_text(folder / run_files.SEEN, seen)
    run_files.replace_text(folder / run_files.PEER, facts.model_dump_json(indent=1) + "\n")


def load_peer(folder: Path) -> TrainedPeer:
    """Load what `write_peer` wrote.

    Raises:
        CheckpointError: a file is missing or corrupt, or some of the weights are not finite.
        DataError: the record of how its data was split is corrupt.
        Mistake: the package with such a network is not installed.
    """
    tree = read_json(folder / run_files.PEER)
    try:  # strict JSON: "3" is no number, but a list counts as a tuple
        facts = PeerFacts.model_validate_json(json.dumps(tree), strict=True)
        weights = load_file(folder / run_files.PEER_WEIGHTS)
        peer = with_weights(facts, weights)
    except (OSError, ValueError, SafetensorError) as error:
        sentence = one_line(error).removesuffix(".")
        raise CheckpointError(f"The peer in {folder} cannot be used: {sentence}; train it again.") from None
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise CheckpointError(
            f"Weights of the peer in {folder} are NaN or infinite: its training diverged; train it again."
        )
    return TrainedPeer(
        folder.resolve().name, peer, facts, read_record(folder / run_files.SPLIT), read_seen(folder / run_files.SEEN)
    )
