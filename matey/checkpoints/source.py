"""A checkpoint of any form as parameters by name: DeepSpeed's files of ZeRO 0 to 3, or a universal checkpoint.

Files are mapped instead of read, and no code that a pickle asks for is run. What is missing, corrupt, or of another step is
said in a sentence.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Size, Tensor
from tqdm import tqdm

from matey.checkpoints.run_files import CONFIG, MODEL_STATES, ShardError, first_file, step_folder
from matey.mistakes import one_line, regular

# All objects in DeepSpeed 0.19's files that are neither tensors nor plain Python. Python's own classes replace DeepSpeed's, so
# that none of its code is imported or run. The first is the place of a rank's piece of a parameter in the flat group: `numel`
# values from `start` on.
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (SimpleNamespace, "deepspeed.utils.tensor_fragment.fragment_address"),
    (SimpleNamespace, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
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
    except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, UnpicklingError) and (stranger := re.search(r"GLOBAL (\S+)", str(error))):
            raise ShardError(
                f"{path} holds {stranger[1]}, which is no part of a checkpoint of MATEY; it was not loaded, since that "
                "could run code of the person who wrote the file."
            ) from None
        raise _unusable(path, error) from None


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
    # The last three: metadata that is absent, lacks a name, or has text in place of a number.
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise _unusable(path, error) from None
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


def _unusable(path: Path, error: Exception) -> ShardError:
    """Return the error for a file that is missing, that this user may not read, or that is not whole."""
    if isinstance(error, FileNotFoundError):
        why = "is missing"
    elif isinstance(error, PermissionError):
        why = f"cannot be read ({error.strerror})"
    else:
        why = "is cut short or corrupt"
    return ShardError(f"{path} {why}; copy it again, or take an older checkpoint.")


# A stretch of a parameter: its name, where it starts in the flattened parameter, and its values.
Stretch = tuple[str, int, Tensor]


def plain(optimizer: Mapping[str, Any], groups: Sequence[Sequence[str]], what: str) -> Iterator[Stretch]:
    """Yield a moment as ZeRO 0 keeps it: whole, numbered through the groups of parameters; Muon has no second moment."""
    names = [name for group in groups for name in group]
    for index, name in enumerate(names):
        if (values := optimizer["state"][index].get(what)) is not None:
            yield name, 0, values.flatten()


def mapped(state: Mapping[str, Any], what: str, starts: dict[str, int]) -> Iterator[Stretch]:
    """Yield a rank's values as ZeRO 1 and 2 divide them: a flat group in equal parts, with a list of the pieces in each part.

    Args:
        state: the state of the rank's optimizer.
        what: the values to yield, ``fp32`` or one of the moments.
        starts: number of values of each parameter that the ranks before this one hold; updated in place.
    """
    if what == "fp32":
        flats = state["single_partition_of_fp32_groups"]
    else:
        flats = _moment(state["base_optimizer_state"], what)
    for flat, pieces in zip(flats, state["param_slice_mappings"], strict=True):
        for name, piece in pieces.items() if flat is not None else ():
            yield name, starts[name], flat[piece.start : piece.start + piece.numel]
            starts[name] += piece.numel


def sliced(
    state: Mapping[str, Any], shapes: Sequence[Mapping[str, Size]], rank: int, num_ranks: int, what: str
) -> Iterator[Stretch]:
    """Yield a rank's values as ZeRO 3 divides them: every parameter in equal slices, the last ones perhaps padding."""
    flats = state["fp32_flat_groups"] if what == "fp32" else _moment(state["optimizer_state_dict"], what)
    for flat, group in zip(flats, shapes, strict=True):
        offset = 0
        for name, shape in group.items() if flat is not None else ():
            size = math.prod(shape)
            length = -(-size // num_ranks)
            start = min(rank * length, size)
            yield name, start, flat[offset : offset + min(length, size - start)]
            offset += length


def adam_step(state: Mapping[str, Any]) -> int:
    """Return how many steps a rank's part of the optimizer has taken."""
    adam = state.get("base_optimizer_state") or state["optimizer_state_dict"]
    return int(_groups(adam)[0]["step"])


def _moment(adam: Any, what: str) -> list[Tensor | None]:  # noqa: ANN401
    """Return a moment of each group; Muon has no second moment."""
    return [group.get(what) for group in _groups(adam)]


def _groups(adam: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return [adam["state"][index] for index in sorted(adam["state"])]


WEIGHTS, AVERAGE = "fp32", "ema"
MOMENTS = ("exp_avg", "exp_avg_sq")
OPTIMIZER = "mp_rank_00_optim_states.pt"


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk.

    Attributes:
        folder: the folder that holds its files.
        stage: the ZeRO stage; None for a universal checkpoint, which has none.
        common: the data that are the same on every rank: steps, ranks, shapes, the run's state, and without ZeRO 3
            the module.
    """

    folder: Path
    stage: int | None
    common: dict[str, Any]

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return self.common["global_steps"]

    @property
    def num_ranks(self) -> int:
        """Number of ranks that wrote the checkpoint."""
        return self.common["dp_world_size"]

    @property
    def layout(self) -> str:
        """The ZeRO stage and the number of shards, in words."""
        # In bf16, all stages use this file name; only the wrapper's shards do not name a stage.
        return layout_of(self.stage, self.stage == 1 and "zero_stage" not in self.optimizer(0))

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the trained parameters by name."""
        if self.common["param_shapes"]:
            return {name: shape for group in self.common["param_shapes"] for name, shape in group.items()}
        module = self.common["module"]
        # Without ZeRO, DeepSpeed does not record the trained parameters, but MATEY does.
        return {name: module[name].shape for group in self.common["trained"] for name in group}

    def shapes_with(self, what: str) -> dict[str, torch.Size]:
        """Return the shapes of the trained parameters that have a quantity: Muon's matrices have no second moment."""
        with laid_out(self.folder):
            without = self.by_muon if what == MOMENTS[1] else []
            return {name: shape for name, shape in self.shapes.items() if name not in without}

    @property
    def by_muon(self) -> list[str]:
        """Names of the parameters that Muon updates; AdamW updates all others."""
        return self.common.get("by_muon", [])

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of the model's `matey.model.configuration.MateyConfig`."""
        with laid_out(self.folder):
            return dict(self.common["network"])

    @property
    def adapters(self) -> tuple[int, float] | None:
        """Rank and alpha of the adapters beside the weights; None without any."""
        return self.common.get("adapters")

    @property
    def has_average(self) -> bool:
        """Whether the checkpoint holds a moving average of the weights."""
        return self.common.get("has_average", False)

    def files(self) -> list[Path]:
        """Return all files that the checkpoint should have."""
        ranks = range(self.num_ranks)
        averages = [self.folder / average_file(rank) for rank in (ranks if self.stage else range(1))]
        if self.stage is None:
            kinds = (WEIGHTS, *MOMENTS, *((AVERAGE,) if self.has_average else ()))
            whole = [universal_file(self.folder, what, name) for what in kinds for name in self.shapes_with(what)]
            return [self.folder / MODEL_STATES, *whole]
        models = [self.model_file(rank) for rank in (ranks if self.stage == 3 else range(1))]
        optimizers = [self.optimizer_file(rank) for rank in ranks] if self.stage else []
        return [*models, *optimizers, *(averages if self.has_average else ())]

    def model_file(self, rank: int) -> Path:
        """Return the file of a rank's module; without ZeRO 3 all ranks share one."""
        return self.folder / (f"zero_pp_rank_{rank}_{MODEL_STATES}" if self.stage == 3 else MODEL_STATES)

    def optimizer_file(self, rank: int) -> Path:
        """Return the file of a rank's part of the optimizer; ZeRO 1 in bf16 has another name for it."""
        prefix = "bf16_" if any(self.folder.glob("bf16_zero_pp_rank_*")) else ""
        return self.folder / f"{prefix}zero_pp_rank_{rank}_{OPTIMIZER}"

    def whole(self, what: str) -> dict[str, Tensor]:
        """Return a quantity of whole trained parameters by name, in float32; memory holds one copy and one shard at a time.

        Args:
            what: the values to return: ``fp32`` for the weights, ``exp_avg`` and ``exp_avg_sq`` for the moments,
                ``ema`` for the moving average.

        Raises:
            ShardError: a file is missing, corrupt, or of another step, or the checkpoint lacks the quantity.
        """
        with laid_out(self.folder):
            shapes = self.shapes_with(what)
            missing = {name: math.prod(shape) for name, shape in shapes.items()}
            whole = {name: torch.empty(shape) for name, shape in shapes.items()}
            for name, start, values in self._stretches(what):
                whole[name].view(-1)[start : start + len(values)] = values
                missing[name] -= len(values)
        if wrong := [name for name, count in missing.items() if count]:
            raise ShardError(f"The shards in {self.folder} do not add up to {wrong[0]}; copy the checkpoint again.")
        return whole

    def parameter(self, what: str, name: str) -> Tensor:
        """Return ``fp32``, ``exp_avg``, ``exp_avg_sq`` or ``ema`` of one parameter of a universal checkpoint."""
        path = universal_file(self.folder, what, name)
        with laid_out(path):
            return open_shard(path)["param"]

    def frozen(self) -> dict[str, Tensor]:
        """Return frozen parameters and buffers by name, as the engine held them."""
        with laid_out(self.folder):
            trained, module = self.shapes, self.common["module"]
            if self.stage != 3:
                return {name: values for name, values in module.items() if name not in trained}
            frozen = {name: module[name] for name in self.common["buffer_names"]}
            shapes = self.common["frozen_param_shapes"]
            models = map(self.model_file, range(self.num_ranks if shapes else 0))
            parts = [self.opened(path)["frozen_param_fragments"] for path in models]
            for name, shape in shapes.items():
                frozen[name] = torch.cat([part[name].flatten() for part in parts])[: math.prod(shape)].view(shape)
            return frozen

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups with their learning rates and weight decays."""
        if self.stage == 0:
            return self.common["optimizer"]["param_groups"]
        state = self.optimizer(0)
        return (state.get("base_optimizer_state") or state["optimizer_state_dict"])["param_groups"]

    def optimizer(self, rank: int) -> dict[str, Any]:
        """Open a rank's part of the optimizer; raises as `opened` does."""
        path = self.optimizer_file(rank)
        with laid_out(path):
            return self.opened(path)["optimizer_state_dict"]

    def opened(self, path: Path) -> dict[str, Any]:
        """Open a file of a rank's module or optimizer, or of a parameter.

        Raises:
            ShardError: the file is missing or corrupt, or of another step than the module.
        """
        with laid_out(path):
            states = open_shard(path)
            if path.name.endswith(OPTIMIZER):
                self.check_step(path, adam_step(states["optimizer_state_dict"]))
            elif "global_steps" in states:
                self.check_step(path, states["global_steps"])
        return states

    def average(self, path: Path) -> Iterator[Stretch]:
        """Open a rank's part of the moving average; raises as `opened` does."""
        step, stretches = average_stretches(path)
        self.check_step(path, step)
        return stretches

    def check_step(self, path: Path, step: int) -> None:
        """Raise ShardError if a file is of another step."""
        if step != self.step:
            raise ShardError(
                f"{path} is of step {step}, {self.model_file(0).name} of step {self.step}; copy both again."
            )

    def _stretches(self, what: str) -> Iterator[Stretch]:
        ranks = tqdm(range(self.num_ranks if self.stage else 1), desc=f"Reading {what}", unit="shard", leave=False)
        if what == AVERAGE and self.stage is not None:
            for rank in ranks:
                yield from self.average(self.folder / average_file(rank))
        elif self.stage is None:
            for name in tqdm(self.shapes_with(what), desc=f"Reading {what}", unit="parameter", leave=False):
                yield name, 0, self.parameter(what, name).flatten()
        elif self.stage == 0 and what == WEIGHTS:
            yield from ((name, 0, self.common["module"][name].flatten()) for name in self.shapes)
        elif self.stage == 0:
            yield from plain(self.common["optimizer"], self.common["trained"], what)
        else:
            starts = dict.fromkeys(self.shapes, 0)
            shapes = self.common["param_shapes"]
            for rank in ranks:
                # No variable holds the shard here: it would stay mapped while the next one is opened.
                if self.stage == 3:
                    yield from sliced(self.optimizer(rank), shapes, rank, self.num_ranks, what)
                else:
                    yield from mapped(self.optimizer(rank), what, starts)


def layout_of(stage: int | None, has_bf16_wrapper: bool) -> str:
    """Return in words how DeepSpeed divides its files; runs with the same layout and number of ranks can exchange them.

    Args:
        stage: the ZeRO stage.
        has_bf16_wrapper: whether DeepSpeed wraps the optimizer as for stage 1 in bf16 with float32 gradients.
    """
    if has_bf16_wrapper:
        return "with ZeRO 1 in bf16 and gradients in float32"
    names: dict[int | None, str] = {0: "without ZeRO", 3: "with ZeRO 3"}
    return names.get(stage, "with ZeRO 1 or 2")


def universal_file(folder: Path, what: str, name: str) -> Path:
    """Return the path of a parameter's file in a universal checkpoint.

    Raises:
        ShardError: a parameter's name leads out of the folder, or to another parameter's file.
    """
    if PurePath(name).name != name or name in ("", "..") or "\0" in name:
        raise ShardError(
            f"The checkpoint has a parameter called {name[:80]!r}, which is not a valid file name in {folder}: no model of "
            "MATEY has such a parameter, so it was not used; copy the checkpoint again."
        )
    return folder / AVERAGE / f"{name}.pt" if what == AVERAGE else folder / "zero" / name / f"{what}.pt"


def find_checkpoint(path: Path) -> tuple[Source, Path | None]:
    """Open the checkpoint of a run folder (its newest), of its ``checkpoints/``, or of a folder of one step.

    Returns:
        the checkpoint, and the folder of its run; None for a checkpoint outside a run.

    Raises:
        ShardError: there is no checkpoint, or the file that describes it is missing or corrupt.
    """
    folder = step_folder(path)
    # A run's ``checkpoints`` may be a link to a folder elsewhere.
    runs = (Path(os.path.abspath(folder)).parent.parent, folder.resolve().parent.parent)
    return open_checkpoint(folder), next((run for run in runs if (run / CONFIG).is_file()), None)


def open_checkpoint(folder: Path) -> Source:
    """Open the checkpoint in a folder of one step, in any form."""
    path = first_file(folder)
    common = open_shard(path)
    if not isinstance(common, dict) or "zero_stage" not in common:
        raise ShardError(f"{path} was not written by this version of MATEY; resume the run and save it again.")
    return Source(folder, None if (folder / "zero").is_dir() else common["zero_stage"], common)


def find_damage(source: Source, files: Iterable[Path] | None = None) -> list[str]:
    """Read all files of a checkpoint, or some; return a sentence for each that is missing, corrupt or of another step."""
    return [sentence for path in (source.files() if files is None else files) for sentence in _damage_of(source, path)]


def _damage_of(source: Source, path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".safetensors":
            with laid_out(path):
                for _ in source.average(path):
                    pass
            return
        source.opened(path)
        # Opening only maps the tensors; damage to their bytes shows in the archive's checksums.
        with ZipFile(path) as archive:
            if wrong := archive.testzip():
                yield (
                    f"{path} is corrupt: the bytes of its record {wrong} do not match their checksum; copy it again, or take "
                    "an older checkpoint."
                )
    except ShardError as error:
        yield str(error)
    except BadZipFile as error:
        yield str(_unusable(path, error))
