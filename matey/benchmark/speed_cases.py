"""The cases of timed training steps: a size, a scheme, a token set, and fields with a few sharp spots."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from matey.fields import FieldBatch
from matey.model.compiled import compile_blocks
from matey.model.configuration import MateyConfig
from matey.model.matey import MateyModel


@dataclass(frozen=True)
class Case:
    """A model and a sample to time.

    Attributes:
        model: size of the model, see `matey.model.configuration.SIZES`.
        scheme: attention scheme.
        tokens: token set.
        patches: cells of a patch along each axis of space, coarse to fine.
        refine: share of the patches of each level that is split.
        grid: cells along ``y, x`` or ``z, y, x``.
        frames: number of history frames.
        fields: number of fields.
        batch: number of samples.
        dtype: precision of weights and tokens.
        device: the device that the step runs on.
        patch_frames: frames of a patch, on every level.
        checkpoint_blocks: the setting ``parallel.checkpoint_blocks``.
        network: the setting ``model.network``.
        compile: the setting ``train.compile``.
        config: contents of a ``config.json``, which decide the network and its tokens in place of the settings above; its
            fields are those of the case.
    """

    model: str = "Ti"
    scheme: str = "vit"
    tokens: str = "uniform"
    patches: tuple[int, ...] = (8,)
    refine: float = 0.25
    grid: tuple[int, ...] = (128, 128)
    frames: int = 4
    fields: int = 4
    batch: int = 2
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    patch_frames: int = 1
    checkpoint_blocks: str = "none"
    network: str = "matey"
    compile: bool = False
    config: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Case:
        """Return the case that `to_json` wrote."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        return cls(**{**values, "dtype": getattr(torch, settings["dtype"])})

    def to_json(self) -> dict[str, Any]:
        """Return the case in values that JSON can hold."""
        return asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}

    @property
    def coarse_cells(self) -> int:
        """Cells of a coarse patch along the first axis of the grid."""
        return self.make_config().patches[0][-len(self.grid)]

    def make_config(self) -> MateyConfig:
        """Return the configuration of the model."""
        if self.config is not None:
            return MateyConfig.from_dict({**self.config, "fields": self._names()})
        depths = [1 if len(self.grid) == 2 else cells for cells in self.patches]
        patches = [(self.patch_frames, z, cells, cells) for z, cells in zip(depths, self.patches, strict=True)]
        tokens = {"set": self.tokens, "patches": patches, "rule": "fraction", "refine": self.refine}
        names = {"fields": self._names(), "scheme": self.scheme, "history": self.frames, "network": self.network}
        return MateyConfig.from_size(self.model, tokens=tokens, **names)

    def make_model(self) -> MateyModel:
        """Return a model with random weights."""
        torch.manual_seed(0)
        model = MateyModel(self.make_config()).to(self.device, self.dtype)
        model.checkpoint_blocks = self.checkpoint_blocks
        if self.compile:
            compile_blocks(model, self.device)
        return model

    def make_batch(self) -> FieldBatch:
        """Return smooth fields with a few sharp spots that drift."""
        random = torch.Generator().manual_seed(0)
        z, y, x = (*(1,) * (3 - len(self.grid)), *self.grid)
        axes = torch.meshgrid(*(torch.linspace(0, 1, size) for size in (z, y, x)), indexing="ij")
        frames = torch.arange(self.frames + 1)[:, None, None, None, None]
        phase = 6.3 * torch.rand(self.batch, 1, self.fields, 1, 1, 1, generator=random)
        values = torch.sin(3 * axes[2] + 2 * axes[1] + axes[0] + 0.05 * frames + phase)
        for _ in range(4):
            centre = torch.rand(3, self.batch, 1, 1, 1, 1, 1, generator=random) + 0.01 * frames
            if z == 1:
                centre[0] = 0  # in the plane of a 2-D grid, which most spots would otherwise miss
            distance = sum((axis - at).square() for axis, at in zip(axes, centre, strict=True))
            values = values + 3 * torch.exp(-distance / 0.03**2)
        lead_time = torch.ones(self.batch, dtype=torch.long)
        batch = FieldBatch("benchmark", self._names(), values[:, :-1], lead_time, values[:, -1])
        return batch.to(self.device)

    def _names(self) -> tuple[str, ...]:
        return tuple(f"field_{number}" for number in range(self.fields))


def cases_of_sweep() -> list[list[Case]]:
    """Return the groups of cases that are timed in turns; the first of each is uniform, and the others are compared with it."""
    uniform = Case()
    large = Case(grid=(256, 256), batch=1, refine=0.15)
    sets = (("mix", (32, 8)), ("mul", (32, 8)), ("mix", (32, 16, 8)), ("mul", (32, 16, 8)))
    by_scheme = [
        [replace(uniform, scheme=scheme), *(replace(uniform, scheme=scheme, tokens=t, patches=p) for t, p in sets)]
        for scheme in ("vit", "svit", "avit")
    ]
    return [
        *by_scheme,
        [large, *(replace(large, tokens=tokens, patches=patches) for tokens, patches in sets[:2])],
        [uniform, replace(uniform, dtype=torch.bfloat16)],
    ]
