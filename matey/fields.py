"""The types that data and model share: named physical fields, histories of one system, and the boxes that ranks read of them.

Axis legend of the whole package: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes, ``n`` token, ``e`` embedding,
``h`` head, ``d`` head width. Two-dimensional data has ``z = 1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from matey.mistakes import nearest_name

if TYPE_CHECKING:  # no tensor is made here, and PyTorch takes seconds to import
    import torch
    from torch import Tensor


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
                f"{nearest_name(name, vocabulary)} Name it so in the description of the data, or teach the model a new field: "
                "`matey finetune`."
            )
    return [rows[name] for name in names]


LARGEST = 1e15
"""Largest value that is accepted: squares of larger ones, summed over cells, leave the range of float32."""


@dataclass(frozen=True, repr=False)
class FieldBatch:
    """Histories of one system on one grid, and the frames to predict from them.

    Tensors are kept as they are; NumPy arrays and numbers become tensors of the same precision.

    Attributes:
        system: name of the PDE system, such as ``shallow_water``.
        fields: names along axis ``f``.
        history: ``(b, t, f, z, y, x)``, the past frames in physical units, oldest first; finite, but for cells that hold no
            data (land, solids): there a field is NaN in all frames and in the target, and so in forecasts.
        lead_time: ``(b,)``, number of snapshots from the last frame to the target; a single number counts for all samples.
        target: ``(b, f, z, y, x)``, the frame to predict in physical units; None when there is none to compare with.
        spacing: cell size along ``z, y, x`` in the units of the data set.
        periodic: whether the domain wraps around along ``z, y, x``.
        draw: ``(b,)`` int64, the number of each sample's draw in the training stream, or None outside of training.
        given_fields: names along axis ``f`` of ``given``.
        given: ``(b, t, f, z, y, x)``, fields that are known and not predicted, such as coefficients, geometry or forcing.
            One frame if all are constant in time, otherwise the frames of the history and those after it, at least up to
            the target; None if there are no such fields.
        parameters: physical parameters, such as a viscosity, by name: ``(b,)``, NaN for a sample with an unknown value; a
            single number counts for all samples.
        conserved: fields whose sum over the domain is conserved, besides the quantities in `matey.physics`.
    """

    system: str
    fields: tuple[str, ...]
    history: Tensor
    lead_time: Tensor
    target: Tensor | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    periodic: tuple[bool, bool, bool] = (False, False, False)
    draw: Tensor | None = None
    given_fields: tuple[str, ...] = ()
    given: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    conserved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError if shapes contradict each other, or values are not real numbers, finite in all cells with data."""
        import torch  # imported here, since most users of this module need no tensor

        for what in ("fields", "given_fields"):
            object.__setattr__(self, what, _as_names(what, getattr(self, what)))
        if not isinstance(self.parameters, Mapping):
            raise ValueError(
                f"parameters must be numbers by name, such as {{'viscosity': 0.1}}, got {type(self.parameters).__name__}."
            )
        for name in ("history", "lead_time", "target", "draw", "given"):
            if (value := getattr(self, name)) is not None and not isinstance(value, torch.Tensor):
                object.__setattr__(self, name, _as_tensor(name, value))
        if self.lead_time.ndim == 0 and self.history.ndim > 0:
            object.__setattr__(self, "lead_time", self.lead_time.repeat(self.history.shape[0]))
        parameters = {name: _of_samples(name, value, len(self.history)) for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", parameters)
        self._check_shapes()
        if not self.history.is_floating_point():
            raise ValueError(f"history must hold real numbers, got {_kind(self.history)}; convert it to float32.")
        if self.history.dtype == torch.float16:  # sums over the cells of a patch would leave its range
            raise ValueError("history must be float32, float64 or bfloat16, got float16; convert it to float32.")
        for name in ("target", "given"):  # a mask, for one, may hold booleans or integers
            if (value := getattr(self, name)) is not None and not value.is_floating_point():
                if value.is_complex():
                    raise ValueError(f"{name} must hold real numbers, got {_kind(value)}; convert it to float32.")
                object.__setattr__(self, name, value.to(self.history.dtype))
        self._check_about()
        _check_finite("history", self.fields, self.history, self.history[:, :1])
        if self.target is not None:
            _check_finite("target", self.fields, self.target[:, None], self.history[:, :1])
        if self.given is not None:
            _check_finite("given", self.given_fields, self.given, self.given[:, :1])

    def _check_about(self) -> None:
        """Raise ValueError if lead times, spacing or periodic axes are not valid."""
        if self.num_samples == 0:
            raise ValueError("history holds no sample.")
        if not (self.lead_time.isfinite() & (self.lead_time > 0)).all():
            raise ValueError(f"lead_time must be above 0 and finite, got {self.lead_time.tolist()[:8]}.")
        spacing, periodic = tuple(self.spacing), tuple(self.periodic) if not isinstance(self.periodic, str) else ()
        if len(spacing) != 3 or not all(0 < float(step) < math.inf for step in spacing):
            raise ValueError(f"spacing must be three cell sizes above 0, along z, y, x, got {self.spacing!r}.")
        if len(periodic) != 3 or not all(wraps in (True, False) for wraps in periodic):
            raise ValueError(f"periodic must be True or False for each of z, y, x, got {self.periodic!r}.")

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
        self._check_given()

    def _check_given(self) -> None:
        shape = () if self.given is None else tuple(self.given.shape)
        if (self.given is None) != (not self.given_fields) or (shape and len(shape) != 6):
            raise ValueError(
                f"given must be (b, t, f, z, y, x) and named by given_fields, got shape {shape} for {self.given_fields}."
            )
        if both := set(self.given_fields) & set(self.fields):
            raise ValueError(f"A field is predicted or given, not both; got {', '.join(sorted(both))} as both.")
        if not shape:
            return
        num_samples, num_frames, _, *grid = self.history.shape
        expected = (num_samples, shape[1], len(self.given_fields), *grid)
        if shape != expected or 1 < shape[1] <= num_frames:
            raise ValueError(
                f"given must be {(num_samples, 't', len(self.given_fields), *grid)} with 1 frame, or those of the history, "
                f"{num_frames}, and further ones up to the target; got shape {shape}."
            )

    def __repr__(self) -> str:
        """Describe the batch in a line, without its values."""
        leads = ", ".join(f"{lead:g}" for lead in sorted(set(self.lead_time.tolist())))
        wraps = ", ".join(axis for axis, wraps in zip("zyx", self.periodic, strict=True) if wraps) or "nowhere"
        return (
            f"FieldBatch({self.system}: {', '.join(self.fields)}; history {tuple(self.history.shape)} of "
            f"{_kind(self.history)} on {self.history.device}, lead time {leads}, {'a' if self.target is not None else 'no'} "
            f"target, spacing {self.spacing}, periodic {wraps}"
            f"{''.join(f', given {name}' for name in self.given_fields)}"
            f"{', parameters ' + ', '.join(self.parameters) if self.parameters else ''})"
        )

    def with_tensors(self, **tensors: Tensor | Mapping[str, Tensor] | tuple[str, ...] | None) -> FieldBatch:
        """Return the batch with other tensors or names; only shapes are checked, since values may come from a model."""
        batch = copy(self)
        for name, tensor in tensors.items():
            object.__setattr__(batch, name, tensor)
        batch._check_shapes()
        return batch

    def moved_on(self, frames: Tensor, num_new: int | None = None) -> FieldBatch:
        """Return the batch moved some snapshots ahead; its target stays the same.

        Args:
            frames: ``(b, t, f, z, y, x)``, the frames after the history, or the newest of them.
            num_new: number of snapshots to move ahead, by default the number of ``frames``.

        Raises:
            ValueError: the given fields end before the snapshot that follows the new history.
        """
        import torch

        history = torch.cat([self.history, frames], dim=1)[:, -self.num_frames :]
        given, num_new = self.given, frames.shape[1] if num_new is None else num_new
        if given is not None and given.shape[1] > 1:
            if given.shape[1] - num_new <= self.num_frames:
                raise ValueError(
                    f"{', '.join(self.given_fields)}: given up to {given.shape[1] - self.num_frames} frames after the history, "
                    f"and {num_new + 1} are needed; give more frames, or forecast fewer."
                )
            given = given[:, num_new:]
        return self.with_tensors(history=history, given=given)

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
    def samples(self) -> Samples:
        """All that is known of the samples except the values of their fields."""
        window = (self.num_frames, *self.grid)
        about = self.lead_time, self.periodic, self.draw, self.given_fields, self.parameters, self.conserved
        return Samples(self.system, self.fields, window, self.history.dtype, *about)

    @property
    def last(self) -> Tensor:
        """The last known frame, ``(b, f, z, y, x)``, which persistence predicts."""
        return self.history[:, -1]

    @property
    def known_target(self) -> Tensor:
        """The frame to predict; the batch must have one."""
        assert self.target is not None, f"this batch of {self.system} has no target"
        return self.target

    def to(self, device: torch.device | str) -> FieldBatch:
        """Return the batch with its tensors on ``device``."""
        ahead = not str(device).startswith("cpu")  # what comes to the host would be read before it is there
        tensors = {name: getattr(self, name) for name in ("history", "lead_time", "target", "draw", "given")}
        moved = {name: each if each is None else each.to(device, non_blocking=ahead) for name, each in tensors.items()}
        parameters = {name: each.to(device, non_blocking=ahead) for name, each in self.parameters.items()}
        return self.with_tensors(**moved, parameters=parameters)


def _as_names(what: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        example, came = (names, f"the text {names!r}") if isinstance(names, str) else ("height", type(names).__name__)
        raise ValueError(f"{what} must be names such as ({example!r},), got {came}.")
    found = tuple(names)
    if not all(isinstance(name, str) for name in found) or len({*found}) < len(found):
        raise ValueError(f"{what} must be names, each once, got {found}.")
    return found


def has_gaps(values: Tensor) -> bool:
    """Return whether values are NaN somewhere, as in cells that hold no data."""
    return values.numel() > 0 and bool(values.aminmax().min.isnan())  # many times as fast as a test of each


def without_gaps(values: Tensor) -> Tensor:
    """Return values with zeros in the place of NaN."""
    return values.masked_fill(values.isnan(), 0) if has_gaps(values) else values


def _check_finite(what: str, names: Sequence[str], values: Tensor, first: Tensor) -> None:
    """Raise ValueError unless values ``(b, t, f, z, y, x)`` are NaN where the first frame is, and finite elsewhere."""
    ends = *values.aminmax(), *first.aminmax()  # many times as fast as a test of each; NaN is passed on
    if all(-LARGEST <= end <= LARGEST for end in ends):
        return
    gaps = first.isnan()
    gaps = gaps & ~gaps.all(-1, True).all(-2, True).all(-3, True)  # a field needs some cell with data
    wrong = (~values.isnan()).where(gaps, ~(values.abs() <= LARGEST))
    if not wrong.any():
        return
    sample, frame, place, *cell = (int(axis) for axis in wrong.nonzero()[0])
    value = values[sample, frame, place, *cell]
    wanted = f"at most {LARGEST:g}, in larger units if need be" if value.isfinite() else "finite"
    wanted = "NaN in the same cells of all frames, and not everywhere" if has_gaps(first) else wanted
    raise ValueError(
        f"{what} must be {wanted}, but {names[place]!r} is {value.item()} in sample {sample}, frame {frame}, at (z, y, x) = "
        f"{tuple(cell)}; a forecast from it would be NaN everywhere."
    )


def _of_samples(name: str, value: object, num_samples: int) -> Tensor:
    """Return a parameter as a tensor ``(b,)``."""
    import torch

    tensor = value if isinstance(value, torch.Tensor) else _as_tensor(f"The parameter {name!r}", value)
    tensor = tensor.repeat(num_samples) if tensor.ndim == 0 else tensor
    if tensor.shape != (num_samples,) or tensor.isinf().any():
        raise ValueError(
            f"The parameter {name!r} must be a finite number or {num_samples} of them, NaN where it is not known; got "
            f"{tensor.tolist() if tensor.numel() < 9 else f'shape {tuple(tensor.shape)}'}."
        )
    return tensor.to(torch.get_default_dtype()) if not tensor.is_floating_point() else tensor


def _as_tensor(name: str, value: object) -> Tensor:
    """Return an array or number as a tensor of the same precision."""
    import numpy as np
    import torch

    try:
        if isinstance(value, np.ndarray):  # PyTorch refuses negative strides and a foreign byte order
            value = np.array(value, value.dtype.newbyteorder("="), order="C")
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name} must be a tensor or an array of numbers, got {type(value).__name__}"
            f"{f' of {value.dtype}' if isinstance(value, np.ndarray) else ''}; convert it to float32."
        ) from None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Samples:
    """All that is known of the samples of a batch except the values of their fields.

    Attributes:
        system: name of the PDE system.
        fields: names along axis ``f``.
        window: size ``t, z, y, x`` of a history.
        dtype: precision of the fields.
        lead_time: ``(b,)``, number of snapshots from the last frame to the target.
        periodic: whether the domain wraps around along ``z, y, x``.
        draw: ``(b,)`` int64, the number of each sample's draw in the training stream, or None outside of training.
        given_fields: names of the fields that are known and not predicted.
        parameters: physical parameters by name: ``(b,)``, NaN for a sample with an unknown value.
        conserved: fields whose sum over the domain is conserved, see `matey.fields.FieldBatch`.
        order: the axes ``z, y, x``, as 0, 1 and 2, from the slowest to the fastest of the file of the first sample.
    """

    system: str
    fields: tuple[str, ...]
    window: tuple[int, int, int, int]
    dtype: torch.dtype
    lead_time: Tensor
    periodic: tuple[bool, bool, bool]
    draw: Tensor | None = None
    given_fields: tuple[str, ...] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    conserved: tuple[str, ...] = ()
    order: tuple[int, int, int] = (0, 1, 2)

    @property
    def number(self) -> int:
        """Number of samples ``b``."""
        return len(self.lead_time)


Box = tuple[int, tuple[slice, slice, slice]]
"""A sample's index, and a box of cells along ``z, y, x``; a box that ends beyond a periodic axis goes on at its other side."""


@dataclass(frozen=True)
class Piece:
    """Values in a box of cells of one sample.

    Attributes:
        sample: index of the sample in its batch.
        start: first cell of the box along ``z, y, x``. A box that ends beyond a periodic axis goes on at its other side.
        history: ``(t, f, z, y, x)``, the past frames in physical units.
        target: ``(f, z, y, x)``, the frame to predict; None where there is none to compare with.
        given: ``(t, f, z, y, x)``, fields that are known and not predicted, see `matey.fields.FieldBatch`, or None.
        own: the cells ``z, y, x`` of the box that the rank holds, where it only looks at those around them; else None.
    """

    sample: int
    start: tuple[int, int, int]
    history: Tensor
    target: Tensor | None = None
    given: Tensor | None = None
    own: tuple[slice, ...] | None = None

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The box of cells."""
        sizes = self.history.shape[2:]
        z, y, x = (slice(first, first + size) for first, size in zip(self.start, sizes, strict=True))
        return z, y, x


@dataclass(frozen=True)
class BatchPart:
    """The part of a batch that one rank of a group has read.

    Attributes:
        samples: description of all samples of the batch.
        pieces: the values that were read.
        has_target: whether there are targets.
        num_given: number of frames of the given fields; 1 if all are constant in time, 0 if there are none.
    """

    samples: Samples
    pieces: tuple[Piece, ...]
    has_target: bool = True
    num_given: int = 0

    def without_targets(self) -> BatchPart:
        """Return the same part without the targets."""
        return replace(self, pieces=tuple(replace(piece, target=None) for piece in self.pieces), has_target=False)

    def at_lead(self, lead: int) -> BatchPart:
        """Return the same part with a lead time of ``lead`` snapshots."""
        lead_time = self.samples.lead_time
        return replace(self, samples=replace(self.samples, lead_time=lead_time.new_full(lead_time.shape, lead)))
