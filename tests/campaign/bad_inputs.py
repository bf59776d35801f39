"""The table of bad input: what is spoilt, what is started then, and what the one sentence has to say.

Every case begins with the same folder: data (``swe/``), ``run.yaml``, ``ds.json``, a finished run (``run/``) and an empty
folder ``tmp``. In a command, ``{here}`` stands for it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import layout_files as layouts

PRETRAIN = "launch/pretrain.py --deepspeed_config {here}/ds.json --config {here}/run.yaml"
HERE = "--set output.dir={here}/fresh --set 'data.sets=[{path: {here}/swe}]'"
FRESH = f"{PRETRAIN} {HERE}"
RESUME = f"{PRETRAIN} --resume --set train.steps=10"
FINETUNE = f"{FRESH.replace('pretrain', 'finetune')}"
EVALUATE = "launch/evaluate.py --leads 1 --rollout 2 --out {here}/report --checkpoint {here}/run"
CONVERT = "tools/convert_checkpoint.py {here}/run --out {here}/converted --to"
INSPECT = "tools/inspect_data.py"
SHOW = "tools/show_tokens.py {here}/swe --config {here}/run.yaml --out"
SIMULATE = "tools/simulate.py shallow_water --trajectories 1 --resolution 16 --frames 3 --out {here}/made"
NAME = "<script>alert('x')</script> \"y\" ü 数据"


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        name: what is bad, in a word or two.
        command: the program and its flags, as one would type them.
        words: part of the sentence that says what is wrong.
        prepare: function that spoils the folder, if not the command alone is bad.
        code: the exit code; the inspection's is 1 and its sentences are called faults.
        environment: variables of the process beside the usual ones.
        num_ranks: the number of ranks, which together say it once.
    """

    name: str
    command: str
    words: str
    prepare: Callable[[Path], object] = field(default=lambda here: None)
    code: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    num_ranks: int = 1

    def words_of(self, here: Path) -> list[str]:
        """Return the words of the command."""
        return [word.replace("{here}", str(here)) for word in shlex.split(self.command)]


# What is done to good files: each function returns what spoils a folder, or spoils it itself.
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


def huge(content: dict) -> None:
    """Give a parameter a shape that no memory holds."""
    for shapes in content["param_shapes"]:
        shapes[next(iter(shapes))] = torch.Size((10**6, 10**6))


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


BOMB = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n"
PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}

FULL = "No space left on device"

CASES = [
    # Flags.
    Case("flag missing", "launch/pretrain.py --deepspeed_config {here}/ds.json", "required: --config"),
    Case("flag unknown", f"{PRETRAIN} --stepps 3", "unrecognized arguments: --stepps"),
    Case("configuration missing", PRETRAIN.replace("run.yaml", "nun.yaml"), "nun.yaml: No such file"),
    Case("set without a value", f"{PRETRAIN} --set train.steps", "--set takes key=value"),
    Case("set a key with markup", f"{PRETRAIN} --set 'train.<script>=3'", "unknown key 'train.<script>'"),
    Case("set a URL to write to", f"{PRETRAIN} --set output.dir=s3://bucket/x", "expected a path on this machine"),
    Case("set a rate of NaN", f"{PRETRAIN} --set train.learning_rate=.nan", "finite number"),
    Case("set a bracket too few", f"{PRETRAIN} --set train.betas=[1", "--set train.betas: '[1'"),
    Case("set a sequence too wide", f"{FRESH} --set parallel.sequence_parallel_size=3", "sequence_parallel_size"),
    Case("resume another model", f"{RESUME} --set model.scheme=avit", "holds a run with model.scheme"),
    Case("data of markup", f"{FRESH} --set 'data.sets=[{{path: \"{{here}}/<script>\"}}]'", "<script> does not exist"),
    Case("port of text", FRESH, "MASTER_PORT is 'high'", environment=PLACE | {"MASTER_PORT": "high"}),
    Case("port of 99999", FRESH, "Port 99999 of", environment=PLACE | {"MASTER_PORT": "99999"}),
    # YAML.
    Case("YAML of bytes", PRETRAIN, "run.yaml", text("run.yaml", bytes(range(128)) * 10)),
    Case("YAML of aliases", PRETRAIN, "uses the alias *a", text("run.yaml", BOMB)),
    Case("YAML a list", PRETRAIN, "must hold sections", text("run.yaml", "- 1\n- 2\n")),
    Case("YAML with a tag", PRETRAIN, "run.yaml", text("run.yaml", "data: !!python/object/apply:os.getcwd []\n")),
    Case("YAML too large", PRETRAIN, "is larger than 4 MiB", text("run.yaml", "# " + "x" * 5 * 2**20)),
    # The engine's JSON.
    Case("JSON unknown key", PRETRAIN, "DeepSpeed has no key", text("ds.json", '{"zero_optimisation": {}}')),
    Case("JSON stage 7", PRETRAIN, "stage", text("ds.json", '{"zero_optimization": {"stage": 7}}')),
    # Data.
    Case("HDF5 in half", FRESH, "cannot be opened as HDF5", half(SWE)),
    Case("HDF5 of text values", FRESH, "0000/data", dataset("0000/data", ["a", "b"])),
    Case("HDF5 of 1e10 frames", FRESH, "never written", dataset("0000/data", (10**10, 16, 16, 1))),
    Case("HDF5 of unequal frames", FRESH, "0000", dataset("0000/data", np.ones((5, 16, 16, 1), "f4"))),
    Case("a Well of 1e9", f"{INSPECT} {{here}}/well", "of shape", well(n_trajectories=10**9), 1),
    Case("netCDF cut", f"{INSPECT} {{here}}/a.nc", "it is corrupt: copy it again", netcdf(0, 300), 1),
    Case("netCDF CDF-5", f"{INSPECT} {{here}}/a.nc", "CDF-5", netcdf(4, None, b"CDF\x05"), 1),
    Case(
        "npy of 1e12",
        f"{INSPECT} {{here}}/a.npy",
        "a.npy",
        npy({"descr": "<f8", "fortran_order": False, "shape": (10**4, 10**4, 10**4, 4)}),
        1,
    ),
    # Models.
    Case("weights in half", EVALUATE, "cannot be loaded", half("run/model/model.safetensors")),
    Case("weights missing", EVALUATE, "weights that config.json asks for", weights(lambda tensors: tensors.popitem())),
    Case("config.json a list", EVALUATE, "holds no JSON object", text("run/model/config.json", "[]")),
    Case("config.json of another", EVALUATE, "of type 'bert'", model_json(model_type="bert")),
    Case("config.json too wide", EVALUATE, "cannot be loaded", model_json(width=60_000)),
    # Checkpoints.
    Case("shard in half", RESUME, "is cut short or corrupt", half(f"{STEP}/{OPTIMIZER}")),
    Case("shard with another bit", RESUME, "do not match their checksum", changed(f"{STEP}/{OPTIMIZER}")),
    Case("average missing", RESUME, "is missing", lambda here: [path.unlink() for path in (here / STEP).glob("ema*")]),
    Case("shard of a function", RESUME, "was not loaded, since that could run code", hostile),
    Case("module without keys", RESUME, MODULE, shard(MODULE, lambda content: content.clear())),
    Case("shapes that claim much", f"{CONVERT} fp32", "does not hold what", shard(MODULE, huge)),
    Case(
        "optimizer without values",
        f"{CONVERT} fp32",
        "does not hold what",
        shard(OPTIMIZER, lambda content: content["optimizer_state_dict"].pop("param_slice_mappings")),
    ),
    Case("run's YAML spoilt", RESUME, "run/config.yaml", text("run/config.yaml", "data: [")),
    Case("convert to nothing", "tools/convert_checkpoint.py {here}/run", "give either --describe"),
    # Disks.
    Case(
        "a run on a read-only disk",
        f"{PRETRAIN} --set output.dir={{here}}/disk/run",
        "Read-only file system",
        tmpfs("1m", "disk", is_read_only=True),
    ),
    Case(
        "a run on a full disk", f"{PRETRAIN} --set output.dir={{here}}/disk/run", FULL, tmpfs("64k", "disk", fill=4096)
    ),
    Case(
        "a save on a full disk",
        f"{PRETRAIN} --set output.dir={{here}}/disk/run",
        "Could not save",
        tmpfs("1m", "disk", fill=200_000),
    ),
    Case(
        "convert to a full disk",
        f"{CONVERT.replace('converted', 'disk/x')} fp32",
        "Cannot write",
        tmpfs("1m", "disk", fill=50_000),
    ),
    Case("a page on a full disk", EVALUATE.replace("report", "disk"), FULL, tmpfs("64k", "disk", fill=4096)),
    Case("tokens on a full disk", f"{SHOW} {{here}}/disk/a.png", "Cannot write", tmpfs("64k", "disk", fill=4096)),
    Case("data on a full disk", SIMULATE.replace("made", "disk"), "Cannot write", tmpfs("64k", "disk", fill=4096)),
    # The other programs.
    Case("watching what is no run", "tools/watch.py {here}/swe", "it holds no config.yaml"),
    Case("a lead of 0", f"{EVALUATE} --leads 0", "--leads: expected a whole number from 1"),
    Case("fine-tuning on 0", f"{FINETUNE} --pretrained {{here}}/run --trajectories 0", "data.trajectories"),
    Case("fine-tuning what", f"{FINETUNE} --pretrained {{here}}/run --train it", "there is no fine-tuning mode"),
    Case("a trajectory that is not there", f"{SHOW} {{here}}/a.png --trajectory 99", "trajectories, numbered from 0"),
    # Once for all ranks.
    Case("a key misspelt on two ranks", f"{FRESH} --set train.stepps=3", "Did you mean", num_ranks=2),
    Case("a damaged shard on two ranks", RESUME, "by 1 ranks", num_ranks=2),
    Case(
        "a full disk on two ranks",
        f"{PRETRAIN} --set output.dir={{here}}/disk/run",
        "Could not save",
        tmpfs("1m", "disk", fill=200_000),
        num_ranks=2,
    ),
]
