"""Unpacks the values of an array and finds missing ones, by the attributes that netCDF, CF and xarray share.

Sources: the NetCDF Users' Guide, appendix A; CF conventions 2.5.1 and 8.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Values that the netCDF library writes where a program has written nothing.
_FLOAT_FILL = 9.969209968386869e36
_PACKED_FILL = {np.dtype("i2"): -32767.0, np.dtype("i4"): -2147483647.0}

READ = (
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
)
"""The attributes that `packing_of` reads."""


@dataclass(frozen=True)
class Packing:
    """Packing of an array's values; by default they are stored as they are.

    Attributes:
        scale: factor from a packed value to a value.
        offset: value of a packed 0.
        missing: packed values that stand for missing ones.
        lowest: lowest value that is not missing.
        highest: highest value that is not missing.
        bounds_values: whether these two bounds are unpacked values; otherwise they are packed ones.
        is_unsigned: whether the bits of a signed integer are those of an unsigned one.
        problem: reason why the attributes cannot be followed, empty if they can.
    """

    scale: float | None = None
    offset: float | None = None
    missing: tuple[float, ...] = ()
    lowest: float = -np.inf
    highest: float = np.inf
    bounds_values: bool = False
    is_unsigned: bool = False
    problem: str = ""

    @property
    def is_packed(self) -> bool:
        """Whether the numbers on disk differ from the values that they stand for."""
        return self.scale is not None or self.offset is not None

    @property
    def may_miss(self) -> bool:
        """Whether some values may be marked as missing."""
        return self.is_packed or bool(self.missing) or self.lowest > -np.inf or self.highest < np.inf

    @property
    def marks_by_nan(self) -> bool:
        """Whether NaN alone marks missing values, as in all floats of xarray; a solver that diverged leaves NaN as well."""
        has_bounds = self.lowest > -np.inf or self.highest < np.inf
        return bool(self.missing) and all(map(np.isnan, self.missing)) and not self.is_packed and not has_bounds

    def unpacked(self, raw: np.ndarray) -> np.ndarray:
        """Return unpacked values, NaN where one is marked as missing."""
        kind, lowest, highest = raw.dtype, self.lowest, self.highest
        marks = [*self.missing, *([_FLOAT_FILL] if kind.kind == "f" else [])]
        if self.is_packed and not self.missing and not self.is_unsigned and kind in _PACKED_FILL:
            marks.append(_PACKED_FILL[kind])
        if self.is_unsigned and kind.kind == "i":
            raw, wrap = raw.view(kind.str.replace("i", "u")), 2.0 ** (8 * kind.itemsize)
            marks = [mark % wrap for mark in marks]
            lowest, highest = (bound if abs(bound) == np.inf else bound % wrap for bound in (lowest, highest))
        holes = np.isin(raw, np.array([mark for mark in marks if _can_hold(raw.dtype, mark)]).astype(raw.dtype))
        values = raw
        if self.is_packed:
            values = raw.astype(np.float64) * (1.0 if self.scale is None else self.scale) + (self.offset or 0.0)
        if lowest > -np.inf or highest < np.inf:
            bounded = values if self.bounds_values else raw
            holes |= (bounded < lowest) | (bounded > highest)
        return np.where(holes, np.nan, values) if holes.any() else values


def packing_of(attributes: Mapping[str, object], kind: np.dtype) -> Packing:
    """Return the packing that an array's attributes state; its ``problem`` names an attribute that is no number."""
    found: dict[str, Any] = {name: attributes[name] for name in READ if attributes.get(name) is not None}
    is_unsigned = _text(found.pop("_Unsigned", "")).lower() == "true"
    numbers = {name: np.asarray(value).reshape(-1) for name, value in found.items()}
    for name, several in numbers.items():
        most = {"missing_value": several.size, "valid_range": 2}.get(name, 1)
        if several.dtype.kind not in "fiu" or several.size != most:
            expected = "two numbers" if most == 2 else "a number"
            return Packing(problem=f"its attribute {name} is {found[name]!r}, expected {expected}: write it as such")
    one = {name: float(several[0]) for name, several in numbers.items() if several.size == 1}
    bounds = [numbers[name].dtype.kind for name in ("valid_range", "valid_min", "valid_max") if name in numbers]
    low, high = map(float, numbers.get("valid_range", (-np.inf, np.inf)))
    return Packing(
        one.get("scale_factor"),
        one.get("add_offset"),
        tuple(float(mark) for name in ("_FillValue", "missing_value") for mark in numbers.get(name, ())),
        one.get("valid_min", low),
        one.get("valid_max", high),
        "f" in bounds and kind.kind != "f",
        is_unsigned,
    )


def _can_hold(kind: np.dtype, mark: float) -> bool:
    """Whether a type can hold a number, to the precision of the type."""
    if kind.kind == "b":
        return False
    if kind.kind == "f":
        return not abs(mark) > float(np.finfo(kind).max)
    return bool(np.isfinite(mark)) and mark == round(mark) and np.iinfo(kind).min <= mark <= np.iinfo(kind).max


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
