"""A run's folder: its resolved configuration, whole checkpoints only, and the best weights in Hugging Face form.

The engine loads DeepSpeed's checkpoint for the same ranks and ZeRO stage, or a universal one for any. A kill at any moment
leaves the best weights whole.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import matey
from matey.checkpoints import run_files
from matey.checkpoints.source import AVERAGE, Source, average_file, find_damage, layout_of, open_checkpoint
from matey.config import ConfigError, RunConfig, dump_config, load_config
from matey.config.flags import command_line
from matey.data.stream import ends_of_workers_heard_later
from matey.mistakes import Mistake, one_line
from matey.model.matey import MateyModel, quiet
from matey.model.parts import adapters_of, plain_weights
from matey.parallel.collectives import Engine, barrier, from_all_ranks, from_rank_zero, rank, world_size
from matey.parallel.engine import load_deepspeed, whole_parameters
from matey.parallel.failure import lost_contact
from matey.parallel.master import Piece, masters, refresh_module, set_frozen, set_whole, stepped_by_muon, trained_names
from matey.train.folder import (
    DONE,
    FolderLock,
    LockedError,
    cannot_write,
    check_folder,
    is_folder,
    not_shared,
    record,
)

# Versions of the programs that write a checkpoint; DeepSpeed records its own.
VERSIONS = {"matey": matey.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


class RunFolder:
    """The folder of one run; every rank has this object, and rank 0 writes all files but shards."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / run_files.CHECKPOINTS
        self.metrics = self.path / run_files.METRICS
        self.model = self.path / run_files.MODEL
        self._old_model = self.path / run_files.MODEL_BEFORE
        self._lock = FolderLock(self.path)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other runs out of the folder, which is made if it is not there. All ranks must enter.

        Raises:
            ConfigError: another run uses the folder, it must not be a run's, or ranks do not share it.
        """
        refusal, holder = from_rank_zero((self._enter(), self._lock.holder) if rank() == 0 else (None, {}))
        unseen = None if refusal or rank() == 0 else not_shared(self.path, holder)
        if refusal := refusal or next(filter(None, from_all_ranks(unseen)), None):
            self._lock.release()
            raise ConfigError(refusal)
        try:
            yield
        finally:
            self._lock.release()

    def newest_step(self) -> int | None:
        """Return the step of the newest whole checkpoint, None if there is none.

        Raises:
            ConfigError: the file ``latest`` names no checkpoint.
        """
        try:
            tag = run_files.latest_tag(self.checkpoints)
        except run_files.ShardError as error:
            raise ConfigError(f"{error} Or start again without --resume.") from None
        if tag is None:
            # The run may have been killed after a checkpoint got its name, and before `latest` was written.
            return max(self._steps(), default=None)
        match = run_files.STEP.fullmatch(tag)
        if match is None:
            raise ConfigError(
                f"{self.checkpoints / run_files.LATEST} names {tag!r}, which no run has saved; write the name of a step_* "
                "beside it, or start again without --resume."
            )
        return int(match[1])

    def start(self, run: RunConfig, deepspeed_config: dict[str, Any]) -> str:
        """Write the resolved configuration and move an earlier run in the folder aside; rank 0 returns a note on its place."""
        note = ""
        if rank() == 0:
            if any(os.path.lexists(results) for results in (self.metrics, self.checkpoints, self.model)):
                more = "" if run.output.resume == "auto" else "; --resume would have gone on with it"
                note = f"The earlier run in {self.path} was moved to {self._move_aside()}{more}."
            self._write_configs(run, deepspeed_config)
        barrier()
        return note

    def go_on(self, run: RunConfig, deepspeed_config: dict[str, Any], step: int) -> str:
        """Prepare to go on after ``step``: drop the metrics of steps that run again; return a sentence on corrupt lines."""
        if rank() > 0:
            return ""
        if self._old_model.exists() and not self.model.exists():
            self._old_model.rename(self.model)
        shutil.rmtree(self._old_model, ignore_errors=True)
        log = run_files.read_metrics(self.metrics)
        with self._writing():
            run_files.replace_text(
                self.metrics, "".join(text + "\n" for text, line in log.lines if line["step"] <= step)
            )
        self._write_configs(run, deepspeed_config)
        return log.note(self.metrics)

    def record_done(self, steps: int) -> None:
        """Record that the run has ended with all of so many steps done, unless its disk is full."""
        if rank() == 0:
            with suppress(OSError):
                record(self.path, DONE.format(steps))

    def write_about(self, text: str) -> None:
        """Write the run's description into the folder, for its readers and for the card of an exported model."""
        if rank() == 0:
            with self._writing():
                run_files.replace_text(self.path / run_files.ABOUT, text + "\n")

    @ends_of_workers_heard_later()
    def save(self, engine: Engine, step: int, state: dict[str, Any], keep: int, average: MovingAverage) -> None:
        """Save a checkpoint; `latest` moves to it only when every rank has written its part.

        Raises:
            RunError: the checkpoint could not be written; earlier ones stand.
        """
        # It has another name until it is whole, so that remains of an earlier attempt are not taken for parts of it.
        whole = self.checkpoints / run_files.step_name(step)
        new = whole.with_name(f"{whole.name}.new")
        self._begin_to_write(new)
        try:
            about = {
                "step": step,
                "zero_stage": int(engine.zero_optimization_stage()),
                "trained": trained_names(engine),
                "by_muon": stepped_by_muon(engine),
                "network": engine.module.config.to_dict(),
                "adapters": adapters_of(engine.module),
                "has_average": average.is_kept,
                "versions": VERSIONS,
            }
            engine.save_checkpoint(str(self.checkpoints), tag=new.name, client_state=about | state, save_latest=False)
            average.save(new, step)
            run_files.flush_shards(new, rank())
            barrier()
            if rank() == 0:
                # The checkpoint has to be on the disk before `latest` names it.
                run_files.flush_names(new)
                run_files.flush_names(self.checkpoints)
                self._check_lock()  # the lock may have been lost during a long write
                before = run_files.free_name(whole)
                if is_folder(whole):
                    whole.rename(before)  # left by a run that went on from an earlier step
                new.rename(whole)
                run_files.replace_text(self.checkpoints / run_files.LATEST, whole.name)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
            let_lost_contact_through(error)
            raise RunError(self._cannot_save(f"step {step}", error)) from error
        if rank() == 0:
            self._check_lock()
            if before.exists():
                run_files.remove_if_it_goes(before)
            self._prune(step, keep)
        barrier()

    def load(self, engine: Engine, run: RunConfig, step: int, average: MovingAverage) -> dict[str, Any]:
        """Load the checkpoint of ``step``, DeepSpeed's or universal, and return the state saved with it; nothing is written.

        Raises:
            RunError: the run in this folder has another model, tokenizer or history, or trains other parts; or the checkpoint
                is corrupt, or DeepSpeed's with other ranks, another ZeRO stage or other groups of weights.
        """
        saved = load_config(self.path / run_files.CONFIG)
        for section, keys in KEPT.items():
            before, now = (dict(getattr(config, section) or {}) for config in (saved, run))
            for key in keys or {**before, **now}:
                if before.get(key) != now.get(key):
                    raise RunError(
                        f"{self.path} holds a run with {section}.{key} = {before.get(key)}, this one asks for {now.get(key)}; "
                        "use the same, or another output.dir."
                    )
        barrier()
        return load_checkpoint(engine, self.checkpoints / run_files.step_name(step), average)

    @ends_of_workers_heard_later()
    def save_model(self, engine: Engine) -> None:
        """Replace the Hugging Face form of the weights."""
        self._begin_to_write(self.path / run_files.MODEL_AFTER)
        weights = whole_parameters(engine)
        if rank() == 0:
            try:
                replace_model(self.model, self._old_model, engine.module, weights)
            except (OSError, RuntimeError, SafetensorError) as error:
                raise RunError(self._cannot_save("the best weights", error)) from error
        barrier()

    def _prune(self, step: int, keep: int) -> None:
        """Keep the newest checkpoints up to ``step``; later ones are incomplete, or of steps that are run again.

        Folders with other names than `save` gives are not this run's, and stay.
        """
        steps = self._steps()
        kept = sorted(number for number in steps if number <= step)[-keep:]
        for old in (*(steps[number] for number in steps.keys() - kept), *self._steps(".new").values()):
            run_files.remove_if_it_goes(old)

    def _steps(self, suffix: str = "") -> dict[int, Path]:
        """Return the folders of checkpoints by their step; with ``.new``, those whose writing was cut off."""
        paths = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        matches = (
            (run_files.STEP.fullmatch(path.name.removesuffix(suffix)), path)
            for path in paths
            if path.name.endswith(suffix)
        )
        return {int(match[1]): path for match, path in matches if match and is_folder(path)}

    def _begin_to_write(self, new: Path) -> None:
        """Raise RunError on all ranks if the folder is no longer this run's, or the name of the new folder is taken."""
        if refusal := from_rank_zero((self._lock.loss() or run_files.still_there(new)) if rank() == 0 else None):
            raise RunError(refusal)

    def _check_lock(self) -> None:
        """Raise RunError if the folder has been moved, or may be another run's by now; only rank 0 can tell."""
        if loss := self._lock.loss():
            raise RunError(loss)

    def _enter(self) -> str | None:
        """Take the lock; return a sentence if the folder cannot be used."""
        try:
            check_folder(self.path)
            self._lock.take()
            check_folder(self.path)  # once more, now that no other run can change it
        except (ConfigError, LockedError) as error:
            return str(error)
        except OSError as error:
            return cannot_write(self.path, error)
        return None

    def _move_aside(self) -> Path:
        """Rename the folder, make a new one that is locked before the old lock is released, and return the other name."""
        whole = self.path.resolve()  # the target of a link, so that the link leads to the new folder
        aside = run_files.free_name(whole)
        earlier, self._lock = self._lock, FolderLock(self.path)
        try:
            with self._writing():
                whole.rename(aside)
                whole.mkdir()
                self._lock.take()
        except LockedError as error:
            raise RunError(f"{error} The earlier run is now in {aside}.") from None
        finally:
            earlier.release()
        return aside

    def _write_configs(self, run: RunConfig, deepspeed_config: dict[str, Any]) -> None:
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            run_files.replace_text(self.path / run_files.CONFIG, dump_config(run))
            run_files.replace_text(self.path / run_files.DS_CONFIG, json.dumps(deepspeed_config, indent=2) + "\n")
            record(self.path, f"on {world_size()} ranks: {command_line()}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(cannot_write(self.path, error)) from None

    def _cannot_save(self, what: str, error: Exception) -> str:
        try:
            step = self.newest_step()
            free = f"{shutil.disk_usage(self.path).free / 2**30:.1f} GiB"
        except (OSError, ConfigError) as gone:
            return f"Could not save {what} to {self.path} ({one_line(error)}), nor read it ({one_line(gone)})."
        last = "there is no earlier checkpoint" if step is None else f"the checkpoint of step {step} stands"
        return (
            f"Could not save {what} to {self.path} ({one_line(error)}); {last}. "
            f"Free some space ({free} left) and start the same command with --resume."
        )


def replace_model(folder: Path, old: Path, module: MateyModel, weights: dict[str, Tensor]) -> None:
    """Replace a model's weights; until the new ones are whole on disk, the earlier ones stay, here or under the name ``old``.

    Args:
        folder: the model's folder.
        old: folder of the earlier weights, for the moment in which the new ones get their name.
        module: the network that is trained, as this rank holds it.
        weights: whole parameters of the network by name.

    Raises:
        OSError, RuntimeError, SafetensorError: the weights cannot be written.
    """
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    # A model without weights of its own: the run's module may be in bfloat16, and config.json would say so.
    with torch.device("meta"):
        model = MateyModel(module.config)
    with quiet():
        model.save_pretrained(new, state_dict=plain_weights(module, weights))
    run_files.flush(new)
    if folder.exists():
        _make_way(old)
        folder.rename(old)
    new.rename(folder)
    _make_way(old)


def _make_way(old: Path) -> None:
    """Remove earlier weights; a folder that cannot be removed, as on NFS while a program reads it, gets a number and stays."""
    shutil.rmtree(old, ignore_errors=True)
    if old.exists():
        old.rename(run_files.free_name(old))


# Settings that a resumed run must keep: whole sections where no keys are named, else these keys.
KEPT = dict(model=(), tokens=(), finetune=(), data=("history",), train=("optimizer",))


class RunError(Mistake):
    """A run that cannot start, go on or be saved: one sentence that says what to do."""


def load_checkpoint(engine: Engine, folder: Path, average: MovingAverage) -> dict[str, Any]:
    """Load the checkpoint in a folder ``step_*`` and return the state saved with it. All ranks must call.

    Raises:
        RunError: the checkpoint is corrupt, has other groups of parameters, or is of other ranks or another ZeRO stage and
            not universal.
    """
    older = f"an older one can be named in {folder.parent / run_files.LATEST}."
    try:
        source = open_checkpoint(folder)
        layout = layout_of(engine.zero_optimization_stage(), hasattr(engine.optimizer, "bf16_groups"))
        groups, stated = trained_names(engine), source.common.get("trained")
        if source.stage is not None and (source.num_ranks, source.layout) != (world_size(), layout):
            of_ranks = f"by {source.num_ranks} ranks {source.layout}", f"{world_size()} ranks {layout}"
            raise RunError(_convert_first(source, *of_ranks))
        if source.stage is not None and stated not in (None, groups):
            sizes = (
                f"groups of {' and '.join(str(len(group)) for group in each)} weights" for each in (stated, groups)
            )
            raise RunError(
                _convert_first(source, f"in {next(sizes)}", f"{next(sizes)}, by train.groups and layer_decay")
            )
        # DeepSpeed would not name a corrupt file, and would accept a file of another step or with changed bytes.
        if damage := find_damage(source, source.files()[rank() :: world_size()]):
            raise RunError(f"{damage[0]} Or {older}")
        if source.stage is None:
            return _load_universal(engine, source, average)
        state = load_deepspeed(engine, folder)
        average.load(folder)
    except run_files.ShardError as error:
        raise RunError(f"{error} Or {older}") from None
    except RunError:
        raise
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError, SafetensorError) as error:
        let_lost_contact_through(error)
        raise RunError(f"The checkpoint {folder} cannot be loaded ({one_line(error)}); {older}") from error
    return state


def let_lost_contact_through(error: Exception) -> None:
    """Raise an error again if another rank's end caused it: no file is at fault, and the end of the process explains it."""
    if lost_contact(error, error.__traceback__) is not None:
        raise error


def _convert_first(source: Source, then: str, now: str) -> str:
    run = source.folder.parent.parent
    new = run.with_name(f"{run.name}_universal")
    return (
        f"{source.folder} was saved {then}, and this run has {now}. Start it as before, or convert the checkpoint with "
        f"`matey convert {quote(str(run))} --to universal --out {quote(str(new))}` and go on with --resume --set "
        f"output.dir={quote(str(new))}."
    )


def _load_universal(engine: Engine, source: Source, average: MovingAverage) -> dict[str, Any]:
    """Read this rank's part of every parameter, one parameter at a time; return the state that all ranks share."""
    set_whole(engine, source.parameter, source.step)
    set_frozen(engine, source.common["module"])
    average.set_whole(partial(source.parameter, AVERAGE) if source.has_average else None)
    return source.common


class MovingAverage:
    """An average of the trained weights over the steps, in float32.

    After step s, average <- d average + (1 - d) weights, with d = min(decay, (1 + s) / (10 + s)), so that the initial
    weights are soon forgotten. A decay of 0 keeps no average, and everything here does nothing.
    """

    def __init__(self, engine: Engine, decay: float) -> None:
        self._engine, self._decay = engine, decay
        self._masters = masters(engine) if decay else []
        # Without ZeRO every rank owns all weights, and rank 0 saves their average.
        self._saver = 0 if engine.zero_optimization_stage() == 0 else rank()
        self._averages = [values.clone() for master in self._masters for _, values in master]

    @property
    def is_kept(self) -> bool:
        """Whether an average is kept."""
        return self._decay > 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for _, weights, average in self._parts():
            average.lerp_(weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Exchange the weights and the average within the block, and restore both to the last bit; all ranks must enter.

        After an error they stay exchanged: it ends the run, and a rank that fails alone must not wait for the others.
        """
        self._exchange()
        yield
        self._exchange()

    def save(self, folder: Path, step: int) -> None:
        """Write this rank's part of the average beside the other shards of a checkpoint."""
        if self.is_kept and rank() == self._saver:
            starts = {piece.name: str(piece.start) for piece, _, _ in self._parts()}
            averages = {piece.name: average for piece, _, average in self._parts()}
            save_file(averages, folder / average_file(rank()), {**starts, "step": str(step)})

    def load(self, folder: Path) -> None:
        """Read this rank's part of the average from a checkpoint; if there is none, begin with the engine's weights."""
        path = folder / average_file(self._saver)
        if not path.is_file():
            self.set_whole(None)
            return
        with safe_open(path, "pt") as file:
            for piece, _, average in self._parts():
                average.copy_(file.get_tensor(piece.name))

    def set_whole(self, read: Callable[[str], Tensor] | None) -> None:
        """Set the average from a function that reads whole parameters by name; without it, from the engine's weights."""
        for piece, weights, average in self._parts():
            average.copy_(read(piece.name).flatten()[piece.start : piece.start + piece.length] if read else weights)

    def _parts(self) -> Iterator[tuple[Piece, Tensor, Tensor]]:
        """Yield every piece that this rank owns with its weights and their average."""
        averages = iter(self._averages)
        for master in self._masters:
            for piece, weights in master:
                yield piece, weights, next(averages)

    def _exchange(self) -> None:
        if not self._decay:
            return
        for _, weights, average in self._parts():
            weights_before = weights.clone()
            weights.copy_(average)
            average.copy_(weights_before)
        refresh_module(self._engine)
