"""Finds the folder of the checkpoint that a user means; opens none of its files, and needs no PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

from matey.checkpoints.run_files import CHECKPOINTS, LATEST
from matey.mistakes import Mistake, regular

MODEL_STATES = "mp_rank_00_model_states.pt"  # DeepSpeed's name


class ShardError(Mistake):
    """A checkpoint that cannot be read: one sentence that names the file and says what to do."""


def step_folder(path: Path) -> Path:
    """Return the folder of one step: the newest of a run's folder or of its ``checkpoints/``, or ``path`` itself.

    Raises:
        ShardError: there is no such folder, or it does not say which of its checkpoints is the newest.
    """
    if not path.is_dir():
        raise ShardError(f"There is no folder {path}; give a run's folder, or one of its checkpoints/step_*.")
    folder = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    tag = latest_tag(folder)
    return folder if tag is None else folder / tag


def first_file(folder: Path) -> Path:
    """Return the file that describes the checkpoint in a folder of one step; in a damaged checkpoint it may be missing.

    Raises:
        ShardError: the folder cannot be read, or holds no checkpoint.
    """
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise ShardError(f"{folder} cannot be read (Permission denied); ask its owner, or take an older checkpoint.")
    is_sliced = any(folder.glob(f"zero_pp_rank_*_{MODEL_STATES}"))
    path = folder / (f"zero_pp_rank_0_{MODEL_STATES}" if is_sliced else MODEL_STATES)
    if not path.is_file() and not any(folder.glob("*_states.pt")):
        raise ShardError(f"{folder} holds no checkpoint; give a run's folder, or one of its checkpoints/step_*.")
    return path


def latest_tag(folder: Path) -> str | None:
    """Return the name in the file ``latest``, the name of a folder beside it; None if there is no such file.

    Raises:
        ShardError: the file cannot be read, or there is no such folder.
    """
    latest = folder / LATEST
    try:
        tag = regular(latest).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError) and not latest.is_symlink():
            return None
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ShardError(
            f"{latest} cannot be read ({why}); replace it by a file that holds the name of a step_* beside it."
        ) from None
    if not tag or Path(tag).name != tag or not tag.isprintable() or not (folder / tag).is_dir():
        raise ShardError(
            f"{latest} names {tag[:80]!r}, which is not beside it; write the name of a checkpoint that is."
        )
    return tag
