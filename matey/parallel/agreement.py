"""All ranks must run the same code on the same configuration and data: compared once, before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist

import matey
from matey.config import ConfigError


def fingerprint(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_fingerprint() -> str:
    """Return a hash of the package's source files."""
    root = Path(matey.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def check_agreement(facts: Mapping[str, str]) -> None:
    """Raise ConfigError, on every rank, unless all ranks come with equal facts.

    Args:
        facts: name of each fact, such as ``the data``, mapped to its fingerprint.
    """
    if not dist.is_initialized():
        return
    everyone: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(everyone, dict(facts))
    for what, value in everyone[0].items():
        others = [rank for rank, own in enumerate(everyone) if own[what] != value]
        if others:
            raise ConfigError(
                f"Rank {others[0]} has {what} with fingerprint {everyone[others[0]][what]}, rank 0 has {value} "
                f"({len(others)} of {len(everyone)} ranks differ from rank 0); give all nodes the same files."
            )
