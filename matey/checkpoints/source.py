"""A checkpoint of any form as parameters by name: DeepSpeed's files of ZeRO 0 to 3, or a universal checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from matey.checkpoints.layouts import Stretch, adam_step, mapped, plain, sliced
from matey.checkpoints.newest import MODEL_STATES, ShardError
from matey.checkpoints.shards import average_file, average_stretches, laid_out, open_shard

WEIGHTS, AVERAGE = "fp32", "ema"
MOMENTS = ("exp_avg", "exp_avg_sq")
LEAST_BYTES = 64 * 2**20  # allocating this much does no harm
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
        """Arguments of the model's `matey.model.configuration.MateyConfig`.

        Raises:
            ShardError: the checkpoint does not say.
        """
        if (network := self.common.get("network")) is None:
            raise ShardError(
                f"{self.folder} is of a version that did not save the network with the weights; go on with its run by "
                "--resume, and convert the next checkpoint."
            )
        return dict(network)

    @property
    def adapters(self) -> tuple[int, float] | None:
        """Rank and alpha of the adapters beside the weights; None without any."""
        found: tuple[int, float] | None = self.common.get("adapters")
        return found

    @property
    def num_frozen(self) -> int:
        """Number of values in frozen parameters and buffers, counted without opening another file."""
        trained, module = self.shapes, self.common["module"]
        if self.stage != 3:
            return sum(values.numel() for name, values in module.items() if name not in trained)
        buffers = sum(module[name].numel() for name in self.common["buffer_names"])
        return buffers + sum(map(math.prod, self.common["frozen_param_shapes"].values()))

    @property
    def has_average(self) -> bool:
        """Whether the checkpoint holds a moving average of the weights."""
        return self.common.get("has_average", False) or any(self.folder.glob("ema*"))

    def files(self) -> list[Path]:
        """Return all files that the checkpoint should have."""
        ranks = range(self.num_ranks)
        averages = [self.folder / average_file(rank) for rank in ranks]
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
            self._check_claim(4 * sum(missing.values()))
            whole = {name: torch.empty(shape) for name, shape in shapes.items()}
            for name, start, values in self._stretches(what):
                whole[name].view(-1)[start : start + len(values)] = values
                missing[name] -= len(values)
        if wrong := [name for name, count in missing.items() if count]:
            raise ShardError(f"The shards in {self.folder} do not add up to {wrong[0]}; copy the checkpoint again.")
        return whole

    def _check_claim(self, claimed: int) -> None:
        """Raise ShardError if the parameters claim more bytes than all files have together, moments included."""
        held = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if claimed > max(LEAST_BYTES, held):
            raise ShardError(
                f"The parameters in {self.folder} claim {claimed:,} bytes, and its files have {held:,}; it is corrupt: copy it "
                "again, or take an older checkpoint."
            )

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
            parts = [self.module(rank)["frozen_param_fragments"] for rank in range(self.num_ranks if shapes else 0)]
            for name, shape in shapes.items():
                frozen[name] = torch.cat([part[name].flatten() for part in parts])[: math.prod(shape)].view(shape)
            return frozen

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups with their learning rates and weight decays."""
        if self.stage == 0:
            return self.common["optimizer"]["param_groups"]
        state = self.optimizer(0)
        return (state.get("base_optimizer_state") or state["optimizer_state_dict"])["param_groups"]

    def module(self, rank: int) -> dict[str, Any]:
        """Open a rank's file of the module; raises as `optimizer` does."""
        path = self.model_file(rank)
        with laid_out(path):
            states = open_shard(path)
            self.check_step(path, states["global_steps"])
        return states

    def optimizer(self, rank: int) -> dict[str, Any]:
        """Open a rank's part of the optimizer.

        Raises:
            ShardError: the file is missing or corrupt, or of another step than the module.
        """
        path = self.optimizer_file(rank)
        with laid_out(path):
            state = open_shard(path)["optimizer_state_dict"]
            self.check_step(path, adam_step(state))
        return state

    def average(self, rank: int) -> Iterator[Stretch]:
        """Open a rank's part of the moving average; raises as `optimizer` does."""
        path = self.folder / average_file(rank)
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
        ranks = tqdm(range(self.num_ranks), desc=f"Reading {what}", unit="shard", leave=False)
        if what == AVERAGE and self.stage is not None:
            for rank in ranks:
                yield from self.average(rank)
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
