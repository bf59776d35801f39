"""Checks whether a folder may be a run's; it is refused in a sentence before anything in it is touched.

A run writes to a folder that is new, empty, or marked as a run's, and replaces only entries of the form that it makes itself.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import (
    CHECKPOINTS,
    COMMANDS,
    CONFIG,
    DS_CONFIG,
    LOCK,
    MODEL,
    MODEL_AFTER,
    MODEL_BEFORE,
    MODEL_CONFIG,
    OWNER,
    RUN_FILES,
    STEP,
)
from matey.config import ConfigError
from matey.mistakes import regular

# DeepSpeed looks for a checkpoint's files by `glob`, where these letters form patterns.
PATTERN_LETTERS = "*?["
_DONE = "done: train.steps={}"
FOLDERS = (CHECKPOINTS, MODEL, MODEL_BEFORE, MODEL_AFTER)


def check_folder(path: Path) -> None:
    """Raise ConfigError if a run must not write to a folder."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"output.dir is {str(path)!a}, whose letters this locale ({error.encoding}) cannot write; choose a name without "
            "such, or set PYTHONUTF8=1."
        ) from None
    if letters := [letter for letter in PATTERN_LETTERS if letter in str(path)]:
        raise ConfigError(
            f"output.dir is {path}, and DeepSpeed takes {' and '.join(letters)} for parts of a pattern, so that it would not "
            f"find the run's checkpoints, or find those of another run; choose a name without {' '.join(PATTERN_LETTERS)}."
        )
    here, whole = Path.cwd(), path.resolve()
    if whole == here or whole in here.parents:
        raise ConfigError(
            f"output.dir is {path}, which is the working folder or one above it; name a folder of the run's own, such as "
            "runs/demo."
        )
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ConfigError(f"output.dir is {path}, which is no folder; choose another one.")
    if not is_of_a_run(path) and (others := sorted(entry.name for entry in path.iterdir())):
        raise ConfigError(
            f"output.dir is {path}, which holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''} and was not "
            "made by a run; choose a new or an empty folder."
        )
    _check_entries(path)


def claim_linked_checkpoints(path: Path) -> None:
    """Record the owner of the folder that a link `checkpoints` leads to; two runs there would remove each other's checkpoints.

    Args:
        path: the run's folder, which is locked.

    Raises:
        ConfigError: the folder belongs to another run, which still exists and has a link to it.
        OSError: the folder cannot be written.
    """
    checkpoints = path / CHECKPOINTS
    if not checkpoints.is_symlink():
        return
    owner, others = checkpoints / OWNER, [checkpoints.resolve().parent]
    with suppress(OSError, ValueError):  # no owner is recorded yet
        others.append(Path(regular(owner).read_text(encoding="utf-8").strip()))
    for other in others:
        if is_of_a_run(other) and not other.samefile(path) and _is_same(other / CHECKPOINTS, checkpoints):
            raise ConfigError(
                f"{checkpoints} is a link to {checkpoints.resolve()}, where {other} keeps its checkpoints too, and each of the "
                "two runs would remove the other's; give this one a folder of its own (cp -aL copies what a link leads to)."
            )
    replace_text(owner, f"{path.resolve()}\n")


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def is_of_a_run(path: Path) -> bool:
    """Whether a folder is marked as a run's: by its lock, or by the configurations that runs have always written."""
    return (path / LOCK).is_file() or all((path / name).is_file() for name in (CONFIG, DS_CONFIG))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def record(path: Path, text: str) -> None:
    """Add a line to the commands in a run's folder, with the time."""
    with (path / COMMANDS).open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M} {text}\n")


def record_done(path: Path, steps: int) -> None:
    """Record that a run has ended with all of so many steps done, unless its disk is full."""
    with suppress(OSError):
        record(path, _DONE.format(steps))


def is_done(path: Path, steps: int) -> bool:
    """Whether the last run in a folder has ended, with all of so many steps done; a launcher's exit code may not tell."""
    with suppress(OSError):
        return (path / COMMANDS).read_text(encoding="utf-8").endswith(f"{_DONE.format(steps)}\n")
    return False


def cannot_write(path: Path, error: OSError) -> str:
    """Return a sentence about a run's folder that cannot be written."""
    return f"Cannot write to {path} ({error.strerror}); choose another output.dir."


def _check_entries(path: Path) -> None:
    """Raise ConfigError if an entry of a run's folder is not of the kind that a run makes."""
    for name in (LOCK, *RUN_FILES, *FOLDERS):
        entry = path / name
        is_right = entry.is_dir() if name in FOLDERS else entry.is_file()
        # The folder of checkpoints may be a link; other entries may not, since they are replaced as a whole.
        if os.path.lexists(entry) and (not is_right or entry.is_symlink() and name != CHECKPOINTS):
            raise ConfigError(_no_run_has_made(entry))
    for entry in (path / CHECKPOINTS).iterdir() if (path / CHECKPOINTS).is_dir() else ():
        if STEP.fullmatch(entry.name.removesuffix(".new")) and not is_folder(entry):
            raise ConfigError(_no_run_has_made(entry))
    model = path / MODEL
    if model.is_dir() and any(model.iterdir()) and not (model / MODEL_CONFIG).is_file():
        raise ConfigError(
            f"{model} holds no model, and the run would put its best weights in its place; move it away, or choose another "
            "output.dir."
        )


def _no_run_has_made(entry: Path) -> str:
    what = "a link" if entry.is_symlink() else "a folder" if entry.is_dir() else "a file"
    return f"{entry} is {what}, which no run has made; move it away, or choose another output.dir."
