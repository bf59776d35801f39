"""A run's folder: its resolved configuration, whole checkpoints only, and the best weights in Hugging Face form."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

import matey
from matey.checkpoints.run_files import ABOUT, COMMANDS, MODEL
from matey.config import RunConfig, dump_config, load_resolved
from matey.model.lora import plain_weights
from matey.model.matey import quiet
from matey.parallel.average import MovingAverage
from matey.parallel.collectives import barrier, rank, world_size
from matey.parallel.engine import Engine, whole_parameters
from matey.parallel.master import trained_names
from matey.train.resume import RunError, first_line, let_lost_contact_through, load_checkpoint

# What a resumed run must have as it was: of some sections everything, of others these keys.
KEPT = {"model": (), "tokens": (), "finetune": (), "data": ("history",), "train": ("groups", "layer_decay")}


class RunFolder:
    """The folder of one run; all ranks hold one, rank 0 writes what is not a shard."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.model = self.path / MODEL
        self._old_model = self.path / f"{MODEL}.old"

    def newest_step(self) -> int | None:
        """Return the step of the newest whole checkpoint, None if there is none."""
        try:
            tag = (self.checkpoints / "latest").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        match = re.fullmatch(r"step_(\d+)", tag)
        if match is None or not (self.checkpoints / tag).is_dir():
            raise RunError(
                f"{self.checkpoints / 'latest'} names {tag!r}, which is no checkpoint beside it; write the name of one "
                "that is, or start again without --resume."
            )
        return int(match[1])

    def start(self, run: RunConfig, deepspeed_config: dict[str, Any]) -> None:
        """Write the resolved configuration; an earlier run in the same place is moved aside, not overwritten."""
        if rank() == 0:
            if self.metrics.exists():
                self.path.rename(self._free_name())
            self._write_configs(run, deepspeed_config)
        barrier()

    def go_on(self, run: RunConfig, deepspeed_config: dict[str, Any], step: int) -> None:
        """Prepare to go on after ``step``: refuse another model, and drop the metrics of steps that will be run again.

        Raises:
            RunError: the run in this folder has another model, tokenizer or history, or trains other parts or at other rates.
        """
        saved = load_resolved(self.path / "config.yaml")
        for section, keys in KEPT.items():
            before, now = (dict(getattr(config, section) or {}) for config in (saved, run))
            for key in keys or {**before, **now}:
                if before.get(key) != now.get(key):
                    raise RunError(
                        f"{self.path} holds a run with {section}.{key} = {before.get(key)}, this one asks for {now.get(key)}; "
                        "use the same, or another output.dir."
                    )
        barrier()
        if rank() == 0:
            if self._old_model.exists() and not self.model.exists():
                self._old_model.rename(self.model)
            shutil.rmtree(self._old_model, ignore_errors=True)
            lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
            kept = [line for line in lines if _step_of(line) <= step]
            replace_text(self.metrics, "".join(line + "\n" for line in kept))
            self._write_configs(run, deepspeed_config)
        barrier()

    def write_about(self, text: str) -> None:
        """Keep what the run says of itself, for who finds the folder and for the card of an exported model."""
        if rank() == 0:
            with self._writing():
                replace_text(self.path / ABOUT, text + "\n")

    def save(self, engine: Engine, step: int, state: dict[str, Any], keep: int, average: MovingAverage) -> None:
        """Save a checkpoint; `latest` moves to it only when every rank has written its part.

        Raises:
            RunError: it could not be written; earlier checkpoints stand.
        """
        tag = f"step_{step:06d}"
        try:
            about = {
                "step": step,
                "zero_stage": int(engine.zero_optimization_stage()),
                "trained": trained_names(engine),
                "versions": versions(),
            }
            engine.save_checkpoint(str(self.checkpoints), tag=tag, client_state=about | state, save_latest=False)
            average.save(self.checkpoints / tag, step)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(self.checkpoints / tag, ignore_errors=True)
            let_lost_contact_through(error)
            raise RunError(self._cannot_save(f"step {step}", error)) from error
        barrier()
        if rank() == 0:
            # What `latest` names has to be on the disk before `latest` is.
            _flush(self.checkpoints / tag)
            replace_text(self.checkpoints / "latest", tag)
            self._prune(step, keep)
        barrier()

    def load(self, engine: Engine, step: int, average: MovingAverage) -> dict[str, Any]:
        """Load the checkpoint of ``step``, DeepSpeed's or universal, and return the state saved with it.

        Raises:
            RunError: it is damaged, or DeepSpeed's and of other ranks or another ZeRO stage.
        """
        return load_checkpoint(engine, self.checkpoints / f"step_{step:06d}", average)

    def save_model(self, engine: Engine) -> None:
        """Replace the Hugging Face form of the weights."""
        with whole_parameters(engine) as weights:
            if rank() == 0:
                new = self.path / "model.new"
                shutil.rmtree(new, ignore_errors=True)
                try:
                    with quiet():
                        engine.module.save_pretrained(new, state_dict=plain_weights(engine.module, weights))
                except (OSError, RuntimeError, SafetensorError) as error:
                    shutil.rmtree(new, ignore_errors=True)
                    raise RunError(self._cannot_save("the best weights", error)) from error
                _flush(new)
                # A kill at any moment leaves the old weights or the new ones, here or aside.
                if self.model.exists():
                    self.model.rename(self._old_model)
                new.rename(self.model)
                shutil.rmtree(self._old_model, ignore_errors=True)
        barrier()

    def _prune(self, step: int, keep: int) -> None:
        """Keep the newest checkpoints up to ``step``; those above it are incomplete, or of steps that are run again.

        What is not named exactly as `save` names it is somebody else's and stays.
        """
        matches = ((re.fullmatch(r"step_(\d{6,})", path.name), path) for path in self.checkpoints.iterdir())
        steps = {int(match[1]): path for match, path in matches if match and path.is_dir() and not path.is_symlink()}
        kept = sorted(number for number in steps if number <= step)[-keep:]
        for number in steps.keys() - kept:
            shutil.rmtree(steps[number])

    def _write_configs(self, run: RunConfig, deepspeed_config: dict[str, Any]) -> None:
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(self.path / "config.yaml", dump_config(run))
            replace_text(self.path / "ds_config.json", json.dumps(deepspeed_config, indent=2) + "\n")
            with (self.path / COMMANDS).open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M} on {world_size()} ranks: {shlex.join(sys.argv)}\n")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"Cannot write to {self.path} ({error.strerror}); choose another output.dir.") from None

    def _free_name(self) -> Path:
        number = 1
        while (free := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        return free

    def _cannot_save(self, what: str, error: Exception) -> str:
        step = self.newest_step()
        last = "there is no earlier checkpoint" if step is None else f"the checkpoint of step {step} stands"
        return (
            f"Could not save {what} to {self.path} ({first_line(error)}); {last}. "
            f"Free some space ({_free_space(self.path)} left) and start the same command with --resume."
        )


def replace_text(path: Path, text: str) -> None:
    """Write a file such that a reader, or a crash, sees the old text or the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _flush_folder(path.parent)


def _flush(folder: Path) -> None:
    """Bring a folder, and all files in it, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def versions() -> dict[str, str]:
    """Return what wrote a checkpoint, DeepSpeed aside, which notes its own version."""
    return {"matey": matey.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _step_of(line: str) -> float:
    """Return the step of a line of metrics; infinite for the half line that a crash leaves."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf


def _free_space(path: Path) -> str:
    return f"{shutil.disk_usage(path).free / 2**30:.1f} GiB"
