"""The nouns that data and model meet in: named physical fields, and a batch of histories of one system.

Axis legend of the whole package: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes, ``n`` token, ``e`` embedding,
``h`` head, ``d`` head width. Two-dimensional data has ``z = 1``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no tensor is made here, and PyTorch takes seconds to import
    import torch
    from torch import Tensor


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or ``""`` if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def field_rows(names: Sequence[str], vocabulary: Sequence[str]) -> list[int]:
    """Return the row of each field name in a model's vocabulary.

    Raises:
        ValueError: a name is not in the vocabulary.
    """
    rows = {name: row for row, name in enumerate(vocabulary)}
    for name in names:
        if name not in rows:
            raise ValueError(
                f"The model has no field {name!r}; its vocabulary is {', '.join(vocabulary)}."
                f"{nearest_name(name, vocabulary)} Train with the field in model.fields, or leave this data out."
            )
    return [rows[name] for name in names]


@dataclass(frozen=True, repr=False)
class FieldBatch:
    """Histories of one system on one grid, and what they are to predict.

    Tensors are kept as they are; NumPy arrays and numbers, where a user gives them, become tensors of their precision.

    Attributes:
        system: name of the PDE system, such as ``shallow_water``.
        fields: names along axis ``f``.
        history: ``(b, t, f, z, y, x)``, the past frames in physical units, oldest first; finite.
        lead_time: ``(b,)``, number of snapshots from the last frame to the target; a single number counts for all samples.
        target: ``(b, f, z, y, x)``, the frame to predict in physical units; None when there is none to compare with.
        spacing: cell size along ``z, y, x`` in the units of the data set.
        periodic: whether the domain wraps around along ``z, y, x``.
        draw: ``(b,)`` int64, the number of each sample's draw in the training stream, or None outside of training.
    """

    system: str
    fields: tuple[str, ...]
    history: Tensor
    lead_time: Tensor
    target: Tensor | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    periodic: tuple[bool, bool, bool] = (False, False, False)
    draw: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where shapes contradict each other, or the history is no finite real numbers."""
        import torch  # here, since most who import this module need no tensor

        names: object = self.fields
        if isinstance(names, str):
            raise ValueError(f"fields must be names such as ({names!r},), got the text {names!r}.")
        object.__setattr__(self, "fields", tuple(self.fields))
        for name in ("history", "lead_time", "target", "draw"):
            if (value := getattr(self, name)) is not None and not isinstance(value, torch.Tensor):
                object.__setattr__(self, name, _as_tensor(name, value))
        if self.lead_time.ndim == 0 and self.history.ndim > 0:
            object.__setattr__(self, "lead_time", self.lead_time.repeat(self.history.shape[0]))
        self._check_shapes()
        if not self.history.is_floating_point():
            raise ValueError(f"history must hold real numbers, got {_kind(self.history)}; convert it with .float().")
        finite = self.history.isfinite()
        if not finite.all():
            sample, frame, field, *cell = (int(axis) for axis in (~finite).nonzero()[0])
            raise ValueError(
                f"history must be finite, but {self.fields[field]!r} is {self.history[sample, frame, field, *cell].item()} in "
                f"sample {sample}, frame {frame}, at (z, y, x) = {tuple(cell)}; a forecast from it would be NaN everywhere."
            )

    def _check_shapes(self) -> None:
        if self.history.ndim != 6:
            raise ValueError(f"history must be (b, t, f, z, y, x), got shape {tuple(self.history.shape)}.")
        num_samples, _, num_fields, *grid = self.history.shape
        if num_fields != len(self.fields):
            raise ValueError(f"history holds {num_fields} fields, but {len(self.fields)} are named: {self.fields}.")
        if self.lead_time.shape != (num_samples,):
            raise ValueError(f"lead_time must be ({num_samples},), got shape {tuple(self.lead_time.shape)}.")
        if self.target is not None and self.target.shape != (num_samples, num_fields, *grid):
            expected = (num_samples, num_fields, *grid)
            raise ValueError(f"target must be {expected} to go with history, got shape {tuple(self.target.shape)}.")

    def __repr__(self) -> str:
        """Return what the batch is in a line, without its values."""
        leads = ", ".join(f"{lead:g}" for lead in sorted(set(self.lead_time.tolist())))
        wraps = ", ".join(axis for axis, wraps in zip("zyx", self.periodic, strict=True) if wraps) or "nowhere"
        return (
            f"FieldBatch({self.system}: {', '.join(self.fields)}; history {tuple(self.history.shape)} of "
            f"{_kind(self.history)} on {self.history.device}, lead time {leads}, {'a' if self.target is not None else 'no'} "
            f"target, spacing {self.spacing}, periodic {wraps})"
        )

    def with_tensors(self, **tensors: Tensor | None) -> FieldBatch:
        """Return the batch with other tensors, which a model may have made: of these, shapes alone are checked."""
        batch = copy(self)
        for name, tensor in tensors.items():
            object.__setattr__(batch, name, tensor)
        batch._check_shapes()
        return batch

    @property
    def num_samples(self) -> int:
        """Number of samples ``b``."""
        return self.history.shape[0]

    @property
    def num_frames(self) -> int:
        """Number of past frames ``t``."""
        return self.history.shape[1]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of cells along ``z, y, x``."""
        z, y, x = self.history.shape[3:]
        return z, y, x

    @property
    def last(self) -> Tensor:
        """The last known frame, ``(b, f, z, y, x)``: what persistence predicts."""
        return self.history[:, -1]

    @property
    def known_target(self) -> Tensor:
        """The frame to predict, of a batch that has one."""
        assert self.target is not None, f"this batch of {self.system} has no target"
        return self.target

    def to(self, device: torch.device | str) -> FieldBatch:
        """Return the batch with its tensors on ``device``."""
        target = None if self.target is None else self.target.to(device, non_blocking=True)
        return self.with_tensors(
            history=self.history.to(device, non_blocking=True),
            lead_time=self.lead_time.to(device, non_blocking=True),
            target=target,
            draw=None if self.draw is None else self.draw.to(device, non_blocking=True),
        )


def _as_tensor(name: str, value: object) -> Tensor:
    """Return an array or number as a tensor of the same precision."""
    import numpy as np
    import torch

    try:
        # PyTorch takes no array that runs backwards.
        return torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name} must be a tensor or an array of numbers, got {type(value).__name__}"
            f"{f' of {value.dtype}' if isinstance(value, np.ndarray) else ''}; convert it with torch.as_tensor."
        ) from None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
