"""The head of a report, in words: the model, the data, and how the model was evaluated on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from matey.checkpoints.peer_folder import TrainedPeer
from matey.checkpoints.trained import Trained
from matey.evaluate.evaluation import Protocol
from matey.evaluate.held_out import HeldOut
from matey.model.configuration import MateyConfig
from matey.tokens.patches import Patch, padding_note


@dataclass(frozen=True)
class About:
    """The head of a report.

    Attributes:
        name: name of the run or the model.
        facts: pairs of a term and its description, in plain text.
        log: lines of the run's ``metrics.jsonl``; empty if there is none.
        label: name of the kind of model in tables.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    log: Sequence[dict[str, Any]] = field(default_factory=tuple)
    label: str = "MATEY"


def describe(trained: Trained | TrainedPeer, data: HeldOut, protocol: Protocol, date: str, command: str) -> About:
    """Describe the model, the data and the method of evaluation."""
    about = [("date", date), ("command", command)]
    context = describe_context(data, trained.model.device, protocol)
    history = ("history", f"{data.num_frames} frames")
    if isinstance(trained, TrainedPeer):
        size, facts = f"{trained.model.num_parameters:,} parameters", trained.facts
        about += [("model", f"{facts.kind}, compared with MATEY: {size}, for {facts.system} alone"), history]
        about.append(("training", f"leads of 1 to {facts.lead_max} snapshots"))
        return About(trained.name, [*about, *context], label=facts.kind)
    config = trained.model.config
    network = (
        f"{trained.model.num_parameters():,} parameters: {config.num_blocks} blocks of {config.scheme} attention, "
        f"{config.num_heads} heads, {config.width} wide; decodes the {config.predict}"
    )
    about += [("model", network), ("tokens", _tokens(config)), history]
    if trained.run is not None:
        training = f"{trained.run.train.steps} steps, leads of 1 to {trained.run.data.lead_max} snapshots"
        about.append(("training", training))
    for trajectory_set in data.sets:
        for grid in dict.fromkeys(trajectory.grid for trajectory in trajectory_set.trajectories):
            if note := padding_note(grid, config.patches[0]):
                about.append(("padding", f"{trajectory_set.system}: {note}"))
    return About(trained.name, [*about, *context], trained.log)


def describe_context(data: HeldOut, device: torch.device, protocol: Protocol) -> list[tuple[str, str]]:
    """Describe the facts that do not depend on the model: data and device."""
    facts = []
    for trajectory_set, trajectories in zip(data.sets, data.trajectories, strict=True):
        share = f"{data.part}, {len(trajectories)} of {trajectory_set.num_trajectories} trajectories"
        names = ", ".join(trajectory_set.fields)
        facts.append(("data", f"{trajectory_set.system} ({share}): {names}; {_files(trajectory_set.sources)}"))
    facts += [("note", note) for note in data.notes]
    return [*facts, ("device", f"{_device(device)}, up to {protocol.batch_size} samples at a time")]


def patch_text(patch: Patch) -> str:
    """Return the size of a patch in space, such as 8×8, or 8×8×8 in three dimensions."""
    _, z, y, x = patch
    return "×".join(str(cells) for cells in ((y, x) if z == 1 else (z, y, x)))


def _tokens(config: MateyConfig) -> str:
    sizes = " to ".join(patch_text(patch) for patch in config.patches)
    if len(config.patches) == 1:
        return f"{config.tokens.set}, patches of {sizes}"
    return f"{config.tokens.set}, patches of {sizes}, split by {config.tokens.rule} {config.tokens.refine:g}"


def _files(sources: Sequence[Path]) -> str:
    """Name files relative to the working folder, others by the end of the path only, because pages are passed on to others."""
    first = sources[0].resolve()
    near = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else Path("...", *first.parts[-2:])
    return str(near) if len(sources) == 1 else f"{len(sources)} files such as {near}"


def _device(device: torch.device) -> str:
    if device.type != "cpu":
        return str(device)
    load = os.getloadavg()[0]
    return f"{device}, {torch.get_num_threads()} threads on {os.cpu_count()} cores with a load of {load:.1f} in the last minute"
