"""What is done to good files before a program meets them: each function returns what spoils a folder, or spoils it itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import layout_files as layouts

SWE = "swe/2D_rdb_NA_NA.h5"
STEP = "run/checkpoints/step_000008"
OPTIMIZER, MODULE = "zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Return what writes a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda here: (here / name).write_bytes(data)


def half(name: str) -> Callable[[Path], object]:
    """Return what cuts a file in half."""
    return lambda here: os.truncate(here / name, (here / name).stat().st_size // 2)


def changed(name: str) -> Callable[[Path], object]:
    """Return what changes one bit in the middle of a file: where it holds tensors, a value of theirs."""

    def change(here: Path) -> None:
        content = bytearray((here / name).read_bytes())
        content[len(content) // 2] ^= 1
        (here / name).write_bytes(content)

    return change


def dataset(name: str, values: object) -> Callable[[Path], object]:
    """Return what replaces a dataset of the HDF5 file; None removes it."""

    def replace(here: Path) -> None:
        with h5py.File(here / SWE, "a") as file:
            del file[name]
            if isinstance(values, tuple):
                file.create_dataset(name, shape=values, dtype="f4", chunks=True)
            elif values is not None:
                file[name] = values

    return replace


def nothing_finite(here: Path) -> None:
    """Put NaN in the place of all values."""
    with h5py.File(here / SWE, "a") as file:
        for group in file.values():
            group["data"][:] = np.nan


def well(**attributes: object) -> Callable[[Path], object]:
    """Return what writes a file in The Well's layout with other attributes."""

    def write(here: Path) -> None:
        path = layouts.write_the_well(here / "well" / "data" / "test" / "a.hdf5")
        with h5py.File(path, "a") as file:
            file.attrs.update(attributes)

    return write


def npy(header: dict, content: bytes = b"") -> Callable[[Path], object]:
    """Return what writes a NumPy array with a header of one's own."""
    line = repr(header).encode().ljust(117) + b"\n"
    return text("a.npy", b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + content)


def netcdf(start: int = 0, stop: int | None = None, first: bytes = b"") -> Callable[[Path], object]:
    """Return what writes a part of a classic netCDF file, with other bytes in front."""

    def write(here: Path) -> None:
        path = layouts.write_miniweather(here / "a.nc", layouts.thermals())
        path.write_bytes(first + path.read_bytes()[start:stop])

    return write


def model_json(**values: object) -> Callable[[Path], object]:
    """Return what changes values in the model's ``config.json``."""

    def change(here: Path) -> None:
        path = here / "run" / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def weights(change: Callable[[dict], object]) -> Callable[[Path], object]:
    """Return what changes the tensors of the model."""

    def rewrite(here: Path) -> None:
        path = here / "run" / "model" / "model.safetensors"
        tensors = {name: value.clone() for name, value in load_file(path).items()}
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return rewrite


def shard(name: str, change: Callable[[dict], object]) -> Callable[[Path], object]:
    """Return what changes the content of a shard."""

    def rewrite(here: Path) -> None:
        content = torch.load(here / STEP / name, weights_only=False)
        change(content)
        torch.save(content, here / STEP / name)

    return rewrite


class Hostile:
    """An object whose unpickling would write a file."""

    def __reduce__(self):
        return os.system, ("touch /tmp/this_must_not_be_there",)


def hostile(here: Path) -> None:
    """Put a pickle that calls a function in the place of a shard."""
    path = here / STEP / OPTIMIZER
    torch.save({"optimizer_state_dict": Hostile()}, path)


def outside(content: dict) -> None:
    """Rename a parameter such that its file would lie outside."""
    for shapes in content["param_shapes"]:
        name = next(iter(shapes))
        shapes["../" * 8 + "outside"] = shapes.pop(name)


def huge(content: dict) -> None:
    """Give a parameter a shape that no memory holds."""
    for shapes in content["param_shapes"]:
        shapes[next(iter(shapes))] = torch.Size((10**6, 10**6))


def average_without_a_step(here: Path) -> None:
    """Leave the names out of the average's file."""
    path = here / STEP / "ema_rank_00000.safetensors"
    save_file({name: value.clone() for name, value in load_file(path).items()}, path)


def tmpfs(size: str, name: str, *, is_read_only: bool = False, fill: int = 0) -> Callable[[Path], object]:
    """Return what mounts a small disk, of which so many bytes are left; skips where mounting is not allowed."""

    def mount(here: Path) -> None:
        place = here / name
        place.mkdir(exist_ok=True)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True)
        if made.returncode:
            pytest.skip("mounting is not allowed here")
        if is_read_only:
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        if fill:
            (place / "other").write_bytes(bytes(shutil.disk_usage(place).free - fill))

    return mount
