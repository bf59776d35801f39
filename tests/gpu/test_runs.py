"""Runs on a GPU beside the same run of one process on the CPU: losses, norms and errors, of whatever way leads to them."""

import json
import statistics
import sys
from functools import cache

import h5py
import numpy as np
import pytest
import torch

from tests.support.laws import PROVED
from tests.support.paths import BIN
from tests.support.programs import on_device, start
from tests.support.runs import metrics, pretrain, small_run, succeed

ZERO1 = {"zero_optimization": {"stage": 1}}
BF16 = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}, **ZERO1}
WAYS = {
    "micro-batches copied ahead": {},
    "recomputed blocks": {"parallel": {"checkpoint_blocks": "all"}},
    "offloaded activations": {"parallel": {"checkpoint_blocks": "all", "offload_activations": True}},
    "averaged weights": {"train": {"ema": 0.9}},
    "unrolled micro-batches": {"train": {"unroll": 2, "unroll_share": 0.5}},
    "two workers": {"data": {"workers": 2}},
}
OFF = 1e-3  # a share of the numbers: Adam's first steps enlarge rounding
OFF_IN_BF16 = 0.1


def trained(folder, device, *flags, launcher=(sys.executable,), engine=ZERO1, **sections):
    """Train a small run in a folder on a device, and return the run's folder."""
    (folder / "engine.json").write_text(json.dumps(engine))
    train = {"micro_batch": 4, "accumulation": 2, **sections.pop("train", {})}
    config = small_run(folder)(train=train, **sections)
    files = {"deepspeed_config": folder / "engine.json"}
    result = succeed(pretrain(config, *flags, launcher=launcher, env=on_device(device), **files))
    assert f"; {device}" in result.stdout, result.stdout
    PROVED.extend(f"{device}, a warning: {line}" for line in {*result.stderr.splitlines()} if "Warning" in line)
    return folder / "run"


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """Return a function that trains one process on the CPU, once for equal settings."""
    return cache(lambda **train: trained(tmp_path_factory.mktemp("cpu"), "cpu", train=train))


def hold(name, run, reference, most=OFF):
    """Hold the numbers of a run to those of another, and say how far they are apart, and what the run took."""
    off = []
    for key in ("loss", "grad_norm", "valid_vrmse"):
        ours, expected = metrics(run, key), metrics(reference, key)
        assert ours.keys() == expected.keys() and len(ours) > 1, (name, key)
        off.append(max(abs(ours[step] - expected[step]) / expected[step] for step in expected))
    seconds, peak = metrics(run, "seconds"), max(metrics(run, "peak_memory_bytes").values())
    PROVED.append(
        f"{name}: losses off by {off[0]:.1e} of one process's on the CPU, norms by {off[1]:.1e}, errors of validation by "
        f"{off[2]:.1e}; {statistics.median(seconds.values()) * 1e3:.0f} ms a step, {peak / 2**20:,.0f} MiB"
    )
    assert max(off) < most, (name, off)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_on_a_gpu_has_the_numbers_of_one_on_the_cpu(gpu, way, on_cpu, tmp_path):
    hold(f"{gpu}, {way}", trained(tmp_path, gpu, **WAYS[way]), on_cpu(**WAYS[way].get("train", {})))


def test_bf16_stays_beside_float32(gpu, on_cpu, tmp_path):
    hold(f"{gpu}, bf16", trained(tmp_path, gpu, engine=BF16), on_cpu(), OFF_IN_BF16)


@pytest.mark.parametrize("link", ["nccl", "gloo"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_have_the_numbers_of_one_process_on_the_cpu(gpu, stage, size, link, on_cpu, tmp_path):
    if gpu == "cuda" and link == "nccl" and (count := torch.cuda.device_count()) < 2:
        pytest.skip(
            f"two ranks over NCCL need two GPUs, and {count} is here: it refuses two ranks on one; see those over gloo"
        )
    launcher = [BIN / "torchrun", "--standalone", "--nproc_per_node", "2"]
    if link == "gloo":
        launcher += ["-m", "tests.gpu.on_one_device", gpu]
    run = trained(
        tmp_path,
        gpu,
        launcher=launcher,
        engine={"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}},
        train={"micro_batch": 2 * size},
        parallel={"sequence_parallel_size": size},
    )
    hold(f"{gpu}, two ranks over {link}, ZeRO {stage}, groups of {size}", run, on_cpu())


@pytest.mark.slow
def test_two_ranks_that_share_a_device_are_tried_on_the_cpu(on_cpu, tmp_path):
    test_two_ranks_have_the_numbers_of_one_process_on_the_cpu("cpu", 3, 2, "gloo", on_cpu, tmp_path)


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_ended(gpu, tmp_path):
    run = trained(tmp_path, gpu, train={"ema": 0.9}, data={"workers": 1})
    before, seconds = metrics(run, "loss"), metrics(run, "seconds")
    (run / "checkpoints" / "latest").write_text("step_000002")
    trained(tmp_path, gpu, "--resume", train={"ema": 0.9}, data={"workers": 1})
    after = metrics(run, "loss")
    off = max(abs(after[step] - before[step]) / before[step] for step in (3, 4))
    PROVED.append(f"{gpu}, a run that goes on from step 2 of 4: losses off by {off:.1e} of those before")
    assert metrics(run, "seconds")[2] == seconds[2] and metrics(run, "seconds")[4] != seconds[4] and off < OFF


def test_an_evaluation_and_a_forecast_on_a_gpu_are_those_of_the_cpu(gpu, on_cpu, tmp_path):
    run = on_cpu()
    found = {}
    for device in ("cpu", gpu):
        out, to = tmp_path / f"to {device}", ["--device", device, "--threads", "1"]
        evaluates = ["--out", out, "--leads", "1,2", "--rollout", "3"]
        forecasts = ["--data", run.parent / "swe", "--out", out / "forecast.h5", "--steps", "3", "--overwrite"]
        for script, flags in (("evaluate", evaluates), ("predict", forecasts)):
            command = [sys.executable, f"launch/{script}.py", "--checkpoint", run, *flags, *to]
            succeed(start(command, env=on_device(device)))
        records = json.loads((out / "metrics.json").read_text())
        with h5py.File(out / "forecast.h5") as file:
            forecast = []
            file.visititems(lambda _, item: forecast.append(item[()]) if is_field(item) else None)  # noqa: B023
        found[device] = [row["nrmse"] for row in records], forecast
    (errors, frames), (expected_errors, expected_frames) = found[gpu], found["cpu"]
    off = max(abs(a - b) / b for a, b in zip(errors, expected_errors, strict=True))
    of_frames = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(frames, expected_frames, strict=True))
    PROVED.append(
        f"{gpu}, {len(errors)} errors of an evaluation off by {off:.1e}, frames of a forecast by {of_frames:.1e}"
    )
    assert off < OFF and of_frames < OFF


def is_field(item):
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.ndim > 2
