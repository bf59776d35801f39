"""Training on a device: nothing blocks, memory is as planned, copies ahead are whole, the demo learns, and how fast it is."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from matey.benchmark.step import Case, measure, now
from matey.model import attention
from matey.model.nested import num_bytes_of, packed, tensors_in
from matey.model.prepare import prepare
from matey.parallel.exchange import Topology
from matey.planning.machine import load_machine
from matey.planning.memory import plan_memory, read_engine
from matey.planning.workload import Workload
from matey.train import ahead
from tests.support.laws import PROVED
from tests.support.memory_cases import RUN
from tests.support.models import make_batch, make_config, samples_of
from tests.support.programs import cases_of, on_device, start
from tests.support.runs import pretrain

MACHINE = load_machine("dgx-h100").model_copy(update={"reserved_memory": 0})  # of the process nothing is planned here
ZERO1 = {"zero_optimization": {"stage": 1}}
BF16 = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 1}}
MOST_BLOCKING = 3  # calls of a whole step


def case_of(device, **how):
    """Return what a GPU is given to do or, on a CPU, a small part of it by which the code is tried."""
    if device == "cpu":
        how |= {"model": "micro", "grid": (32, 32), "batch": 1, "fields": 1, "frames": 2, "dtype": torch.float32}
        how["patches"] = (8, 4) if how.get("tokens", "uniform") != "uniform" else (8,)
    return Case(**how, device=device)


def step_of(case, config):
    """Return what `step_case` found of a case's step."""
    command = [sys.executable, "-m", "tests.gpu.step_case", json.dumps([case.to_json(), config])]
    (point,) = cases_of(start(command, env=on_device(case.device)), "found")
    assert point["device"] == case.device
    return point


@pytest.mark.processes
@pytest.mark.parametrize(
    ("scheme", "tokens", "config"),
    [
        ("vit", "mix", ZERO1),
        pytest.param("vit", "uniform", ZERO1, marks=pytest.mark.slow),
        pytest.param("avit", "mix", ZERO1, marks=pytest.mark.slow),
        pytest.param("vit", "mix", BF16, marks=pytest.mark.slow),
        pytest.param("vit", "uniform", BF16, marks=pytest.mark.slow),
    ],
)
def test_no_call_of_a_step_waits_for_the_device_and_memory_peaks_as_planned(device, scheme, tokens, config):
    patches = (8,) if tokens == "uniform" else (32, 8)
    case = case_of(device, model="S", scheme=scheme, tokens=tokens, patches=patches, batch=4)
    point = step_of(case, config)
    here = replace(case, device="cpu")
    workload = Workload(here.make_config(), tuple(samples_of(here.make_batch(), here.make_config())))
    run = RUN.model_copy(update={"train": RUN.train.model_copy(update={"micro_batch": case.batch})})
    engine = read_engine(config)
    planned = plan_memory(run, workload, engine, Topology(0, 1, 1, 1), MACHINE).total
    PROVED.append(
        f"{device}, S {scheme} {tokens}, {engine.precision}: no blocking call in forward, loss and backward, "
        f"{point['blocked']} in the optimizer's step; planned over measured peak of memory {planned / point['peak']:.2f}"
    )
    assert point["blocked"] <= MOST_BLOCKING and point["kernels"] > 100 and 0 < point["idle"] < point["busy"] * 100
    if device == "cuda":  # on a CPU the interpreter outweighs a small model; tests/planning measures there
        assert planned == pytest.approx(point["peak"], rel=0.15)


@pytest.mark.parametrize("is_small", [True, False], ids=["ahead", "after the step before"])
def test_micro_batches_arrive_whole_while_the_device_is_far_behind_its_host(device, is_small, monkeypatch):
    monkeypatch.setattr(ahead, "is_copied_ahead", lambda *_: is_small)
    target = torch.device(device, *([0] if device == "cuda" else []))
    config = make_config(((1, 1, 8, 8), (1, 1, 4, 4)))
    made = [prepare([make_batch(seed=seed % 4)], config) for seed in range(24)]
    expected = [[each.to(target) for each in tensors_in(one)] for one in made[:4]]
    work, same = torch.ones(2, *([4096, 4096] if device == "cuda" else [8, 8]), device=target), []
    stream = ahead.on_device((packed(one) for one in made), target)
    for number in range(len(made)):
        ready = next(stream)
        for _ in range(4):
            torch.mm(work[0], work[0], out=work[1])
        pairs = zip(tensors_in(ready), expected[number % 4], strict=True)
        same.append(torch.stack([a.isclose(b, rtol=0, atol=0, equal_nan=True).all() for a, b in pairs]).all())
        del ready  # as a step releases it: its memory may be used again
    PROVED.append(
        f"{device}: {len(made)} micro-batches of {num_bytes_of(made[0]):,} bytes came whole, small ones {is_small}"
    )
    assert torch.stack(same).all()


def product_rate(device, dtype):
    """Return the operations a second of a product of matrices that keeps the device busy, the best of ten."""
    size = 8192 if device == "cuda" else 512
    a, b = torch.ones(2, size, size, dtype=dtype, device=device)
    seconds = []
    for _ in range(10):
        start = now(device)
        torch.mm(a, b)
        seconds.append(now(device) - start)
    return 2 * size**3 / min(seconds)


@pytest.mark.whole
@pytest.mark.parametrize("model", ["Ti", "S", "B"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_take_this_long(device, model, dtype, monkeypatch):
    if device == "cpu" and (model, dtype) != ("Ti", torch.float32):
        pytest.skip("one case tries the code on a CPU")
    uniform = case_of(device, model=model, dtype=dtype, batch=8)
    cases = [uniform, case_of(device, model=model, dtype=dtype, batch=8, tokens="mix", patches=(32, 8))]
    ways = ["auto"]
    if device == "cuda" and dtype == torch.bfloat16 and find_spec("flash_attn"):
        ways.append("flash_attn")
    peak = product_rate(device, dtype)
    for way in ways:
        if way != "auto":
            monkeypatch.setattr(attention, "choose_backend", lambda *_: "flash_attn")
        for speed in measure(cases, repeat=10 if device == "cuda" else 1):
            PROVED.append(
                f"{device}, {speed.case.model} {speed.case.tokens}, {dtype}, {way}: {speed.step_seconds * 1e3:.1f} ms a step, "
                f"{speed.num_tokens * speed.case.batch / speed.step_seconds:,.0f} tokens a second, "
                f"{speed.model_flops / speed.step_seconds / peak:.2f} of the rate of a large product ({peak / 1e12:.1f} "
                f"TFLOP/s), {speed.peak_memory_bytes / 2**30:.2f} GiB"
            )
            assert speed.model_flops < 1.2 * peak * speed.step_seconds


@pytest.mark.processes
@pytest.mark.parametrize("config", ["zero1", pytest.param("bf16_zero1", marks=pytest.mark.slow)])
def test_the_demo_learns(device, config, run_yaml, tmp_path):
    num_steps = 200 if device == "cuda" else 4
    train = {"steps": num_steps, "validate_every": num_steps, "checkpoint_every": num_steps, "learning_rate": 1e-3}
    result = pretrain(run_yaml(train=train), deepspeed_config=f"ds_configs/{config}.json", env=on_device(device))
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "valid_vrmse" in line)
    persistence = last["valid_persistence_by_system"]["shallow_water"]
    PROVED.append(
        f"{device}, demo, {config}: VRMSE {last['valid_vrmse']:.3f} after {num_steps} steps, persistence {persistence:.3f}"
    )
    assert f"{device}" in result.stdout and last["valid_vrmse"] < (persistence if device == "cuda" else 1.5)


@pytest.mark.processes
def test_kernels_and_gaps_of_a_step_are_counted(gpu):
    """Tells of a step: kernels, ms of the step, busy, idle and of the longest gap, GiB."""
    for config, dtype in ((ZERO1, torch.float32), (BF16, torch.bfloat16)):
        for tokens, patches in (("uniform", (8,)), ("mix", (32, 8))):
            point = step_of(case_of(gpu, model="Ti", tokens=tokens, patches=patches, batch=8, dtype=dtype), config)
            times = [f"{point[name] * 1e3:.2f}" for name in ("seconds", "busy", "idle", "longest_gap")]
            name = f"{tokens}, {str(dtype).removeprefix('torch.')}"
            row = [name, f"{point['kernels']:,}", *times, f"{point['peak'] / 2**30:.2f}"]
            PROVED.append(f"{gpu}, profile: | {' | '.join(row)} |")
            assert point["kernels"] > 0
