"""The table of bad input: what is spoilt (`damages`), what is started then, and what the one sentence has to say.

Every case begins with the same folder: data (``swe/``), ``run.yaml``, ``ds.json``, a finished run (``run/``) and an empty
folder ``tmp``. In a command, ``{here}`` stands for it.
"""

import h5py
import numpy as np
import torch

from tests.campaign.bad_input_case import (
    BENCHMARK,
    CONVERT,
    EVALUATE,
    FINETUNE,
    FRESH,
    INSPECT,
    PLAN,
    PRETRAIN,
    RESUME,
    SHOW,
    SIMULATE,
    Case,
)
from tests.campaign.bad_settings import SETTINGS
from tests.campaign.damages import (
    MODULE,
    OPTIMIZER,
    STEP,
    SWE,
    average_without_a_step,
    changed,
    dataset,
    half,
    hostile,
    huge,
    model_json,
    netcdf,
    nothing_finite,
    npy,
    outside,
    shard,
    text,
    tmpfs,
    weights,
    well,
)
from tests.support import layout_files as layouts

FULL = "No space left on device"

CASES = [
    *SETTINGS,
    # Data.
    Case("HDF5 in half", FRESH, "is truncated: expected", half(SWE)),
    Case("HDF5 of text", FRESH, "is none of HDF5", text(SWE, "not data")),
    Case("HDF5 of nothing", FRESH, "it is empty", text(SWE, "")),
    Case("HDF5 foreign", FRESH, "a layout that no reader knows", lambda here: h5py.File(here / SWE, "w").close()),
    Case("HDF5 of NaN", FRESH, "is nan in frame", nothing_finite),
    Case("HDF5 of text values", FRESH, "0000/data", dataset("0000/data", ["a", "b"])),
    Case("HDF5 without axes", FRESH, "0000", dataset("0000/grid/x", None)),
    Case("HDF5 of 1e10 frames", FRESH, "never written", dataset("0000/data", (10**10, 16, 16, 1))),
    Case("HDF5 of unequal frames", FRESH, "0000", dataset("0000/data", np.ones((5, 16, 16, 1), "f4"))),
    Case("HDF5 times back", f"{INSPECT} {{here}}/swe", "increasing", dataset("0000/grid/t", np.zeros(8, "f4")), 1),
    Case("two systems", FRESH, "must hold one system", lambda here: layouts.write_cavity(here / "swe" / "b.h5")),
    Case("a Well of 1e9", f"{INSPECT} {{here}}/well", "of shape", well(n_trajectories=10**9), 1),
    Case("netCDF cut", f"{INSPECT} {{here}}/a.nc", "truncated or corrupt", netcdf(0, 300), 1),
    Case("netCDF CDF-5", f"{INSPECT} {{here}}/a.nc", "CDF-5", netcdf(4, None, b"CDF\x05"), 1),
    Case("netCDF of text", f"{INSPECT} {{here}}/a.nc", "is none of HDF5", text("a.nc", "none"), 1),
    Case(
        "npy of 1e12",
        f"{INSPECT} {{here}}/a.npy",
        "a.npy",
        npy({"descr": "<f8", "fortran_order": False, "shape": (10**4, 10**4, 10**4, 4)}),
        1,
    ),
    Case(
        "npy of objects",
        f"{INSPECT} {{here}}/a.npy",
        "a.npy",
        npy({"descr": "|O", "fortran_order": False, "shape": (2,)}, b"x" * 64),
        1,
    ),
    Case(
        "npy of another shape",
        f"{INSPECT} {{here}}/a.npy",
        "a layout that no reader knows",
        npy({"descr": "<f8", "fortran_order": False, "shape": (2,)}, bytes(16)),
        1,
    ),
    Case("npy cut", f"{INSPECT} {{here}}/a.npy", "a.npy", text("a.npy", b"\x93NUMPY\x01\x00\x76"), 1),
    Case("nothing to inspect", f"{INSPECT} {{here}}/none", "does not exist", code=1),
    # Models.
    Case("weights in half", EVALUATE, "cannot be loaded", half("run/model/model.safetensors")),
    Case("weights of text", EVALUATE, "but the files hold 40 bytes", text("run/model/model.safetensors", "{}" * 20)),
    Case(
        "weights that claim much",
        EVALUATE,
        "but the files hold 10 bytes",
        text("run/model/model.safetensors", (10**12).to_bytes(8, "little") + b"{}"),
    ),
    Case("weights missing", EVALUATE, "weights that config.json asks for", weights(lambda tensors: tensors.popitem())),
    Case(
        "weights of NaN",
        EVALUATE,
        "hold NaN or infinity",
        weights(lambda tensors: [value.fill_(torch.nan) for value in tensors.values()]),
    ),
    Case(
        "no weights", EVALUATE, "has no model.safetensors", lambda here: (here / "run/model/model.safetensors").unlink()
    ),
    Case("config.json a list", EVALUATE, "holds no JSON object", text("run/model/config.json", "[]")),
    Case("config.json of another", EVALUATE, "of type 'bert'", model_json(model_type="bert")),
    Case("config.json too wide", EVALUATE, "width", model_json(width=60_000)),
    Case("config.json quantized", EVALUATE, "quantization_config", model_json(quantization_config={"bits": 4})),
    Case("config.json of a kernel", EVALUATE, "no model of MATEY has", model_json(attn_implementation="owner/kernel")),
    Case("config.json of text", EVALUATE, "num_blocks", model_json(num_blocks="many")),
    Case("no such model", EVALUATE.replace("/run", "/none"), "There is no folder"),
    # Checkpoints.
    Case("shard in half", RESUME, "is cut short or corrupt", half(f"{STEP}/{OPTIMIZER}")),
    Case("shard with another bit", RESUME, "do not match their checksum", changed(f"{STEP}/{OPTIMIZER}")),
    Case("average missing", RESUME, "is missing", lambda here: [path.unlink() for path in (here / STEP).glob("ema*")]),
    Case("shard missing", RESUME, "is missing", lambda here: (here / STEP / OPTIMIZER).unlink()),
    Case("shard of a function", RESUME, "was not loaded, since that could run code", hostile),
    Case("module of a list", RESUME, MODULE, lambda here: torch.save([1, 2], here / STEP / MODULE)),
    Case("module without keys", RESUME, MODULE, shard(MODULE, lambda content: content.clear())),
    Case(
        "module of another step",
        RESUME,
        "is of step",
        shard(MODULE, lambda content: content.update(global_steps=6, step=6)),
    ),
    Case(
        "shapes of a number",
        f"{CONVERT} fp32",
        "as param_shapes",
        shard(MODULE, lambda content: content.update(param_shapes=3)),
    ),
    Case(
        "a billion ranks",
        f"{CONVERT} fp32",
        "1000000000 ranks",
        shard(MODULE, lambda content: content.update(dp_world_size=10**9)),
    ),
    Case("shapes that claim much", f"{CONVERT} fp32", "claim 8,000,", shard(MODULE, huge)),
    Case("average without a step", f"{CONVERT} fp32 --ema", "is cut short or corrupt", average_without_a_step),
    Case(
        "optimizer without values",
        f"{CONVERT} fp32",
        "does not hold what",
        shard(OPTIMIZER, lambda content: content["optimizer_state_dict"].pop("param_slice_mappings")),
    ),
    Case("latest that leads out", RESUME, "which is not beside it", text("run/checkpoints/latest", "../../swe")),
    Case("latest of nothing", RESUME, "latest names ''", text("run/checkpoints/latest", "")),
    Case("latest of bytes", RESUME, "it is no text", text("run/checkpoints/latest", b"\xff\xfe")),
    Case("run's YAML spoilt", RESUME, "run/config.yaml", text("run/config.yaml", "data: [")),
    Case("run's split spoilt", RESUME, "split.jsonl", text("run/split.jsonl", "{")),
    Case("convert a damaged one", f"{CONVERT} fp32", "is cut short or corrupt", half(f"{STEP}/{OPTIMIZER}")),
    Case("convert onto others", CONVERT.replace("converted", "swe") + " fp32", "exists already"),
    Case("convert to nothing", "tools/convert_checkpoint.py {here}/run", "give either --describe"),
    Case("convert no run", CONVERT.replace("/run ", "/swe ") + " fp32", "swe"),
    Case(
        "parameter that leads out",
        f"{CONVERT} universal",
        "does not hold what a checkpoint must have there",
        shard(MODULE, outside),
    ),
    Case("describe nothing", "tools/convert_checkpoint.py --describe {here}/none", "There is no folder"),
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
    Case(
        "convert to a read-only disk",
        f"{CONVERT.replace('converted', 'disk/x')} fp32",
        "Read-only",
        tmpfs("1m", "disk", is_read_only=True),
    ),
    Case("a page on a full disk", EVALUATE.replace("report", "disk"), FULL, tmpfs("64k", "disk", fill=4096)),
    Case(
        "a page on a read-only disk",
        EVALUATE.replace("report", "disk"),
        "Read-only",
        tmpfs("64k", "disk", is_read_only=True),
    ),
    Case("tokens on a full disk", f"{SHOW} {{here}}/disk/a.png", "Cannot write", tmpfs("64k", "disk", fill=4096)),
    Case("data on a full disk", SIMULATE.replace("made", "disk"), "Cannot write", tmpfs("64k", "disk", fill=4096)),
    Case(
        "data on a read-only disk",
        SIMULATE.replace("made", "disk"),
        "Cannot write",
        tmpfs("64k", "disk", is_read_only=True),
    ),
    # The other programs.
    Case("a lead of 0", f"{EVALUATE} --leads 0", "--leads: expected a whole number from 1"),
    Case("an unknown device", f"{EVALUATE} --device tpu", "got 'tpu'"),
    Case("100000 threads", f"{EVALUATE} --threads 100000", "--threads"),
    Case("a name of bytes for a page", f"{EVALUATE} --out /tmp/\udcff", "expected a name in UTF-8"),
    Case("no windows", f"{EVALUATE} --max-windows 0", "--max-windows: expected a whole number from 1"),
    Case("fine-tuning nothing", f"{FINETUNE} --pretrained {{here}}/none", "There is no folder"),
    Case("fine-tuning on 0", f"{FINETUNE} --pretrained {{here}}/run --trajectories 0", "data.trajectories"),
    Case("fine-tuning what", f"{FINETUNE} --pretrained {{here}}/run --train it", "there is no fine-tuning mode"),
    Case("an unknown system", "tools/simulate.py weather --out {here}/made", "weather"),
    Case("simulating 0 frames", f"{SIMULATE} --frames 0", "frames"),
    Case("simulating a name of bytes", f"{SIMULATE}\udcff", "UTF-8"),
    Case("an unknown machine", f"{PLAN} --machine earth --nodes 1", "earth"),
    Case("a plan for 0 nodes", f"{PLAN} --machine frontier --nodes 0", "--nodes"),
    Case("a grid of 0", f"{BENCHMARK} --grid 0,0", "--grid"),
    Case("refining twice", f"{BENCHMARK} --refine 2", "--refine"),
    Case("a trajectory that is not there", f"{SHOW} {{here}}/a.png --trajectory 99", "trajectories, numbered from 0"),
    # Once for all ranks.
    Case("a key misspelt on two ranks", f"{FRESH} --set train.stepps=3", "Did you mean", num_ranks=2),
    Case("a file of text on two ranks", FRESH, "is none of HDF5", text(SWE, "not data"), num_ranks=2),
    Case("a damaged shard on two ranks", RESUME, "by 1 ranks", num_ranks=2),
    Case(
        "a full disk on two ranks",
        f"{PRETRAIN} --set output.dir={{here}}/disk/run",
        "Could not save",
        tmpfs("1m", "disk", fill=200_000),
        num_ranks=2,
    ),
]
