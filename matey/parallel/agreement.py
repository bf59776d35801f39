"""Checks that all ranks run the same code on the same configuration, once, before they do anything together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import matey
from matey.config import ConfigError, RunConfig, dump_config
from matey.parallel.collectives import from_all_ranks


def fingerprint(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def code_fingerprint() -> str:
    """Return a hash of the package's source files."""
    root = Path(matey.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def check_same_run(run: RunConfig, deepspeed_config: dict[str, Any]) -> None:
    """Raise ConfigError unless all ranks run the same code on the same configuration.

    Only the first rank of a node reads the source files, for all of its node.
    """
    code = {"the code": code_fingerprint()} if is_first_of_node() else {}
    check_agreement(
        {
            **code,
            "the run's configuration": fingerprint(dump_config(run)),
            "the DeepSpeed configuration": fingerprint(json.dumps(deepspeed_config, sort_keys=True)),
        }
    )


def check_agreement(facts: Mapping[str, str]) -> None:
    """Raise ConfigError, on every rank, unless all that have a fact of rank 0 have it equal.

    Args:
        facts: fingerprints by name, such as ``the code``.
    """
    everyone = from_all_ranks(dict(facts))
    for what, value in everyone[0].items():
        others = [rank for rank, own in enumerate(everyone) if own.get(what, value) != value]
        if others:
            raise ConfigError(
                f"Rank {others[0]} has {what} with fingerprint {everyone[others[0]][what]}, rank 0 has {value} "
                f"({len(others)} of {len(everyone)} ranks differ from rank 0); give all nodes the same files."
            )


_place = (0, 1)


def note_place(local_rank: int, local_world_size: int) -> None:
    """Note this rank's number on its node, and the number of ranks there."""
    global _place
    _place = (local_rank, local_world_size)


def is_first_of_node() -> bool:
    """Whether this rank is the first on its node; without others, it is."""
    return _place[0] == 0
