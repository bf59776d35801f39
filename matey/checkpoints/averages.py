"""The files of the moving average: a rank's stretches of parameters, in safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from matey.checkpoints.layouts import Stretch
from matey.checkpoints.newest import ShardError


def average_file(rank: int) -> str:
    """Return the name of a rank's part of the average in a checkpoint."""
    return f"ema_rank_{rank:05d}.safetensors"


def average_stretches(path: Path) -> tuple[int, Iterator[Stretch]]:
    """Return the step of a rank's part of the average, and its stretches.

    Raises:
        ShardError: it is missing or corrupt.
    """
    try:
        file = safe_open(path, "pt")
        metadata = file.metadata()
        step, starts = int(metadata["step"]), {name: int(metadata[name]) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ShardError(f"{path} is missing; copy it again, or take an older checkpoint.") from None
    # The last three: metadata that is not there, lacks a name, or has text for a number.
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        raise ShardError(f"{path} is cut short or corrupt; copy it again, or take an older checkpoint.") from None
    return step, ((name, start, file.get_tensor(name)) for name, start in starts.items())
