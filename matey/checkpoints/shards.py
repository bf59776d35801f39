"""Opens one file of a checkpoint: maps it instead of reading it, and runs no code that a pickle asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from matey.checkpoints.layouts import Stretch
from matey.checkpoints.newest import ShardError
from matey.mistakes import one_line, regular


class FragmentAddress:
    """Place of a rank's piece of a parameter in the flat group: ``numel`` values from ``start`` on."""

    numel: int
    start: int


class Ignored:
    """An object whose content is not used."""


# All objects in DeepSpeed 0.19's files that are neither tensors nor plain Python. Simple classes of our own replace
# DeepSpeed's, so that none of its code is imported or run.
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (FragmentAddress, "deepspeed.utils.tensor_fragment.fragment_address"),
    (Ignored, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),
]


def open_shard(path: Path) -> dict[str, Any]:
    """Return an object written by ``torch.save``, with its tensors mapped from the file.

    Raises:
        ShardError: the file is missing, cut short, or holds an object that is neither a tensor nor known.
    """
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(regular(path), map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise ShardError(f"{path} is missing; copy it again, or take an older checkpoint.") from None
    except UnpicklingError as error:
        if stranger := re.search(r"GLOBAL (\S+)", str(error)):
            raise ShardError(
                f"{path} holds {stranger[1]}, which is no part of a checkpoint of MATEY; it was not loaded, since that "
                "could run code of the person who wrote the file."
            ) from None
        raise ShardError(_damaged(path)) from None
    except PermissionError as error:
        raise ShardError(
            f"{path} cannot be read ({error.strerror}); ask its owner, or take an older checkpoint."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError):
        raise ShardError(_damaged(path)) from None


def average_file(rank: int) -> str:
    """Return the name of a rank's part of the average in a checkpoint."""
    return f"ema_rank_{rank:05d}.safetensors"


def average_stretches(path: Path) -> tuple[int, Iterator[Stretch]]:
    """Return the step of a rank's part of the average, and its stretches.

    Raises:
        ShardError: the file is missing or corrupt.
    """
    try:
        file = safe_open(regular(path), "pt")
        metadata = file.metadata()
        step, starts = int(metadata["step"]), {name: int(metadata[name]) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ShardError(f"{path} is missing; copy it again, or take an older checkpoint.") from None
    # The last three: metadata that is absent, lacks a name, or has text in place of a number.
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        raise ShardError(f"{path} is cut short or corrupt; copy it again, or take an older checkpoint.") from None
    return step, ((name, start, file.get_tensor(name)) for name, start in starts.items())


@contextmanager
def laid_out(path: Path) -> Iterator[None]:
    """Turn errors in a block into a sentence: the file, or folder, can be opened but does not hold a checkpoint.

    Raises:
        ShardError: a value that the block looks up there is missing, or of another type or size.
    """
    try:
        yield
    except ShardError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError, SafetensorError) as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ShardError(
            f"{path} does not hold what a checkpoint must have there ({what}); copy it again, or take an older checkpoint."
        ) from None


def _damaged(path: Path) -> str:
    size = path.stat().st_size if path.exists() else 0  # a link may lead to itself
    return f"{path} ({size:,} bytes) is cut short or corrupt; copy it again, or take an older checkpoint."
