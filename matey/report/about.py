"""The head of a report, in words: the model, the data, and how the model was evaluated on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

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
        facts: pairs of a term and its text, in plain text.
        log: lines of the run's ``metrics.jsonl``; empty where there is none.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    log: Sequence[dict[str, Any]] = field(default_factory=tuple)


def describe(trained: Trained, data: HeldOut, protocol: Protocol, date: str, command: str) -> About:
    """Describe the model, the data and the way of evaluation."""
    config = trained.model.config
    facts = [
        ("date", date),
        ("command", command),
        (
            "model",
            f"{trained.model.num_parameters():,} parameters: {config.num_blocks} blocks of {config.scheme} attention, "
            f"{config.num_heads} heads, {config.width} wide; decodes the {config.predict}",
        ),
        ("tokens", _tokens(config)),
        ("history", f"{data.num_frames} frames"),
    ]
    if trained.run is not None:
        facts.append(
            ("training", f"{trained.run.train.steps} steps, leads of 1 to {trained.run.data.lead_max} snapshots")
        )
    for trajectory_set, trajectories in zip(data.sets, data.trajectories, strict=True):
        share = f"{data.part}, {len(trajectories)} of {trajectory_set.num_trajectories} trajectories"
        names = ", ".join(trajectory_set.fields)
        facts.append(("data", f"{trajectory_set.system} ({share}): {names}; {_files(trajectory_set.sources)}"))
        for grid in dict.fromkeys(trajectory.grid for trajectory in trajectory_set.trajectories):
            if note := padding_note(grid, config.patches[0]):
                facts.append(("padding", f"{trajectory_set.system}: {note}"))
    facts += [("note", note) for note in data.notes]
    facts.append(("device", f"{_device(trained.model.device)}, up to {protocol.batch_size} samples at a time"))
    return About(trained.name, facts, trained.log)


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
    """Name the files as seen from here; of those elsewhere, only the end of the path: pages are passed on to others."""
    first = sources[0].resolve()
    near = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else Path("...", *first.parts[-2:])
    return str(near) if len(sources) == 1 else f"{len(sources)} files such as {near}"


def _device(device: torch.device) -> str:
    if device.type != "cpu":
        return str(device)
    load = os.getloadavg()[0]
    return f"{device}, {torch.get_num_threads()} threads on {os.cpu_count()} cores with a load of {load:.1f} in the last minute"
