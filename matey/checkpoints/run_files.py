"""The names of the files and folders in a run's folder; every module that writes or reads one takes its name from here.

runs/demo/
config.yaml  ds_config.json       what the run does, as resolved
about.txt  commands.txt  split.jsonl  seen.txt
metrics.jsonl                     one line per logged step
checkpoints/step_000100/  latest  DeepSpeed's; `latest` names the newest whole one
model/config.json ...             the best weights, in Hugging Face's format
metrics.json  report.html         what an evaluation adds

The folder of a peer, see `matey.checkpoints.trained`, has split.jsonl and seen.txt too, beside peer.json and
peer.safetensors.

What can be said of such folders without PyTorch is here too: whether a folder is a run's, a model's or a peer's, the newest
checkpoint, and the lines of ``metrics.jsonl``. Files are written such that a crash cannot leave them half written: content
reaches the disk before the name does.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from matey.config.loading import find_shipped
from matey.mistakes import Mistake, regular

CONFIG = "config.yaml"
DS_CONFIG = "ds_config.json"
METRICS = "metrics.jsonl"
ABOUT = "about.txt"  # what the run printed on its data, model and batch before the first step
COMMANDS = "commands.txt"  # the commands that started and resumed the run, one per line
SPLIT = "split.jsonl"  # the trajectories of each part of the data, see `matey.data.split_record`
SEEN = "seen.txt"  # fingerprints of the training trajectories, see `matey.data.split_record`
CHECKPOINTS = "checkpoints"
LATEST = "latest"
STEP = re.compile(r"step_(\d{6,})")  # the names that `step_name` gives
MODEL = "model"
MODEL_BEFORE, MODEL_AFTER = "model.old", "model.new"  # they exist while the best weights are replaced
MODEL_CONFIG = "config.json"
# Files that a conversion copies.
RUN_FILES = (CONFIG, DS_CONFIG, METRICS, ABOUT, COMMANDS, SPLIT, SEEN, MODEL)

PEER = "peer.json"  # a peer's kind, system, fields and history
PEER_WEIGHTS = "peer.safetensors"

LOCK = "matey.lock"  # names the run that is using the folder, see `matey.train.folder`

RECORDS = "metrics.json"
REPORT = "report.html"


def step_name(step: int) -> str:
    """Return the name of the checkpoint that is saved after a step."""
    return f"step_{step:06d}"


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell folders apart, as names of runs or models."""
    parts = [folder.resolve().parts for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len({*parts}):
        length += 1
    names = ["/".join(part[-length:]) for part in parts]
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


@dataclass(frozen=True)
class MetricsLog:
    """The lines of a log that hold the metrics of a step.

    Attributes:
        lines: the lines in the order of the file, each as its text and as the object it holds.
        num_damaged: number of lines that are not an object with a whole number ``step``.
    """

    lines: list[tuple[str, dict[str, Any]]]
    num_damaged: int = 0

    def note(self, path: Path) -> str:
        """Return a sentence on corrupt lines; empty if there are none."""
        return f"{path}: {self.num_damaged} corrupt lines are skipped." if self.num_damaged else ""


def read_metrics(path: Path) -> MetricsLog:
    """Read the lines of a run's ``metrics.jsonl``; none if there is no file."""
    if not path.is_file():
        return MetricsLog([])
    texts = path.read_bytes().split(b"\n")
    texts = [text for text in texts if text.strip()]
    lines = [line for line in map(_parse, texts) if line is not None]
    return MetricsLog(lines, len(texts) - len(lines))


def best_validation(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the line of the best validation, None without any; those before a change of what is validated do not count."""
    alike = [line for line in validations if line.get("chosen_by") == validations[-1].get("chosen_by")]
    errors = [math.inf if math.isnan(line["valid_vrmse"]) else line["valid_vrmse"] for line in alike]
    return alike[errors.index(min(errors))] if alike else None


def _parse(text: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        line = json.loads(text.decode("utf-8"))
    # Not text, not JSON, an integer of thousands of digits (all ValueError), or nested beyond Python's stack.
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or not 0 <= line["step"] < 2**63:
        return None
    return text.decode("utf-8"), {name: value for name, value in line.items() if value is not None}


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


class CheckpointError(Mistake):
    """A folder that holds no usable trained model: one sentence that says what to do."""


def is_peer(folder: Path) -> bool:
    """Whether a folder is a peer's, see `matey.checkpoints.trained`."""
    return (find_shipped(folder) / PEER).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's (it has a ``config.yaml``); otherwise it is a model's (it has a ``config.json``).

    Raises:
        CheckpointError: there is no such folder, it is neither (perhaps a peer's), or the run has written no model yet.
    """
    folder = find_shipped(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}; give a run's folder, or its {MODEL}/.")
    if (folder / CONFIG).is_file():
        if not (folder / MODEL).is_dir():
            raise CheckpointError(
                f"The run {folder} has no {MODEL}/, which training writes at its validations; train it further: --resume also "
                f"puts {MODEL_BEFORE} back, which a run leaves that is ended while it replaces its {MODEL}/."
            )
        return True
    if (folder / MODEL_CONFIG).is_file():
        return False
    if is_peer(folder):
        raise CheckpointError(f"{folder} holds a model to compare with ({PEER}), which only `matey evaluate` can load.")
    raise CheckpointError(
        f"{folder} is neither a run (it has no {CONFIG}) nor a model (it has no {MODEL_CONFIG}); "
        f"give the folder that output.dir names in the run YAML, or its {MODEL}/."
    )


def replace_text(path: Path, text: str) -> None:
    """Write a file such that a reader, also after a crash, finds either the old text or the new one, whole."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file such that a reader, also after a crash, finds either the old content or the new one, whole."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # another process may be writing the same file
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:  # such as a full disk, which should not keep half a file
        new.unlink(missing_ok=True)
        raise
    flush_names(path.parent)


def flush(folder: Path) -> None:
    """Flush a folder, and all files in it, to the disk, and give safetensors files the usual mode."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
        elif path.is_dir():
            flush_names(path)
    flush_names(folder)
    flush_names(folder.parent)


def flush_shards(folder: Path, rank: int) -> None:
    """Do as `flush` does with the files of a checkpoint that a rank wrote; what others still write there comes and goes."""
    for path in folder.iterdir():
        number = re.search(r"rank_(\d+)", path.name)  # the rank's, and of DeepSpeed's two numbers the first
        if number and int(number[1]) == rank:
            _flush_file(path)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        if path.suffix == ".safetensors":  # only their owner could read them, whatever the process's umask says
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(file.fileno(), 0o666 & ~mask)
        os.fsync(file.fileno())


def flush_names(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def free_name(path: Path) -> Path:
    """Return the path of a file or folder with the first unused number behind it, such as ``runs/x.1``."""
    names = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def still_there(new: Path) -> str | None:
    """Remove what an interrupted attempt left in the place of a new folder; return a sentence if that fails."""
    shutil.rmtree(new, ignore_errors=True)
    sentence = f"{new} was left by a save that was cut off, and cannot be removed; remove it, and go on with --resume."
    return sentence if os.path.lexists(new) else None


def remove_if_it_goes(folder: Path) -> None:
    """Remove a folder that is no longer needed; one that cannot be removed only costs disk space and does not stop the run."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        tqdm.write(f"{folder} is no longer needed and cannot be removed ({error.strerror}); it stays.", sys.stderr)
