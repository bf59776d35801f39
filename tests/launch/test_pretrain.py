"""The pretraining command, in real processes, from start to checkpoint, and what goes wrong on the way."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray
import yaml

import matey
from matey.checkpoints.trained import load_trained
from matey.data import open_dataset
from matey.data.split_record import read_seen
from matey.metrics import error_text
from tests.support.described_files import describe, flow
from tests.support.layout_files import write_the_well
from tests.support.programs import LAUNCHERS, TWO_RANKS
from tests.support.runs import fail, metrics, pretrain, small_run, succeed

ACCUMULATED = {"accumulation": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process printed of a small run to its end, and the folder of the run."""
    folder = tmp_path_factory.mktemp("whole")
    return succeed(pretrain(small_run(folder)(train=ACCUMULATED))), folder / "run"


@pytest.fixture
def copy(whole, tmp_path):
    """A function that goes on with, or begins anew, a copy of that run in ``run``."""
    run = shutil.copytree(whole[1], tmp_path / "run")

    def go_on(*more, **kwargs):
        return pretrain(whole[1].parent / "run.yaml", "--set", f"output.dir={run}", *more, **kwargs)

    return go_on


def go_back(run):
    """Leave the checkpoint in the middle, as after a crash before the end, and later steps in the log with other losses."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    others = [line | {"loss": 9.0, "grad_norm": 9.0} if line["step"] > 2 and "loss" in line else line for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in others))
    shutil.rmtree(run / "checkpoints" / "step_000004")
    (run / "checkpoints" / "latest").write_text("step_000002")


def test_a_run_leaves_whole_checkpoints_metrics_and_the_best_weights(whole):
    result, run = whole
    errors = metrics(run, "valid_vrmse")
    assert set(errors) == {2, 4} and f"Step 4: validation VRMSE {error_text(errors[4])}" in result.stdout
    table = result.stdout.partition("best validation")[2].split()
    assert table[table.index("shallow_water") + 1] == error_text(min(errors.values()))
    assert f"Next: matey evaluate --checkpoint {run} --out {run}" in result.stdout
    assert (run / "checkpoints" / "latest").read_text() == "step_000004"
    assert sorted(p.name for p in (run / "checkpoints").glob("step_*")) == ["step_000002", "step_000004"]
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    used = "seconds seconds_by_part cpu_seconds num_cores peak_memory_bytes total_memory_bytes"
    assert set(line) == {*"step loss loss_by_system learning_rate grad_norm num_tokens".split(), *used.split()}
    assert set(line["seconds_by_part"]) == {"data", "forward", "backward", "optimizer", "waiting"}
    assert min(line["seconds_by_part"][part] for part in ("forward", "backward", "optimizer")) > 0
    assert sum(line["seconds_by_part"].values()) <= line["seconds"]
    assert line["loss_by_system"] == {"shallow_water": line["loss"]}
    assert {p.name for p in (run / "model").iterdir()} >= {"config.json", "model.safetensors"}
    assert len(read_seen(run / "seen.txt")) == 8  # of ten trajectories, those that are trained on


def test_data_to_validate_on_is_scored_beside_the_rest_and_never_trained_on(run_yaml, tmp_path):
    other = write_the_well(tmp_path / "well" / "data" / "test" / "a.hdf5")
    result = succeed(pretrain(run_yaml(data={"validate_on": [str(other)]})))
    assert "test_flow: height (not trained), pressure (not trained)" in result.stdout
    for line in metrics(tmp_path / "run", "valid_vrmse_by_system").values():
        assert set(line) == {"shallow_water", "test_flow"}
    assert metrics(tmp_path / "run", "valid_vrmse") == {
        step: line["shallow_water"] for step, line in metrics(tmp_path / "run", "valid_vrmse_by_system").items()
    }
    assert all(set(line) == {"shallow_water"} for line in metrics(tmp_path / "run", "loss_by_system").values())
    # Fields that training never shows keep rows of zeros, which predict no change.
    lines = (metrics(tmp_path / "run", key) for key in ("valid_vrmse_by_system", "valid_persistence_by_system"))
    for model, persistence in zip(*(line.values() for line in lines), strict=True):
        assert model["test_flow"] == pytest.approx(persistence["test_flow"], rel=1e-5)


def test_resuming_gives_the_losses_of_the_uninterrupted_run_to_the_last_bit(whole, copy, tmp_path):
    run = tmp_path / "run"
    go_back(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    result = succeed(copy("--resume"))
    assert "Going on after step 2" in result.stdout
    assert metrics(run) == metrics(whole[1])
    assert metrics(run, "grad_norm") == metrics(whole[1], "grad_norm")
    assert "nothing to do" in succeed(copy("--set", "output.resume=auto")).stdout
    # Without a word of going on, it is moved aside and not written over.
    before = (run / "metrics.jsonl").read_text()
    result = succeed(copy("--set", "train.steps=1"))
    assert f"The earlier run in {run} was moved to {run}.1" in result.stdout
    assert (tmp_path / "run.1" / "metrics.jsonl").read_text() == before


# ZeRO 1 is what the other tests train with.
@pytest.mark.parametrize(
    ("launcher", "stage"),
    [
        pytest.param("mpirun", 0, marks=pytest.mark.slow),
        pytest.param("deepspeed", 2, marks=pytest.mark.slow),
        ("torchrun", 3),
    ],
)
def test_two_ranks_under_any_launcher_and_zero_stage_train_as_one_process(whole, run_yaml, tmp_path, launcher, stage):
    two, one = run_yaml(train={"micro_batch": 2, **ACCUMULATED}), whole[1]
    succeed(pretrain(two, launcher=LAUNCHERS[launcher], deepspeed_config=f"ds_configs/zero{stage}.json"))
    assert metrics(tmp_path / "run") == pytest.approx(metrics(one), rel=1e-5)
    for key in ("grad_norm", "valid_vrmse"):
        assert metrics(tmp_path / "run", key) == pytest.approx(metrics(one, key), rel=1e-4)
    assert metrics(tmp_path / "run", "num_tokens") == metrics(one, "num_tokens")
    one, two = (load_trained(run).model.state_dict() for run in (one, tmp_path / "run"))
    for name, expected in one.items():
        assert two[name].shape == expected.shape and (two[name] - expected).abs().max() < 1e-4, name


def test_bf16_trains(whole, run_yaml, tmp_path):
    succeed(pretrain(run_yaml(train=ACCUMULATED), deepspeed_config="ds_configs/bf16_zero1.json"))
    half, single = (list(metrics(run).values()) for run in (tmp_path / "run", whole[1]))
    assert half == pytest.approx(single, rel=2e-2)
    # The model begins as persistence, whatever its precision; later losses would agree to 1e-6 in float32.
    assert half[0] == single[0] and all(abs(a - b) > 1e-5 * b for a, b in zip(half[1:], single[1:], strict=True))
    assert load_trained(tmp_path / "run").model.cells_after.field_out.abs().min() > 0  # it began as zeros


def test_a_full_disk_loses_nothing_and_says_how_to_go_on(copy, tmp_path):
    more = ("--set", "train.steps=6", "--resume")
    # A limit on the size of files fails as a full disk does, in the middle of writing.
    fail(copy(*more, limit_file_bytes=500_000), "Could not save", "the checkpoint of step 4 stands", "--resume")
    checkpoints = tmp_path / "run" / "checkpoints"
    assert (checkpoints / "latest").read_text() == "step_000004"
    assert sorted(path.name for path in checkpoints.glob("step_*")) == ["step_000002", "step_000004"]
    succeed(copy(*more))


def test_a_loss_that_is_not_finite_stops_the_run(run_yaml):
    often = {"steps": 8, "checkpoint_every": 1, "validate_every": 8}
    config = run_yaml(train={**often, "learning_rate": 10, "weight_decay": 1e3, "warmup_steps": 0})
    fail(pretrain(config), "is not finite (loss of shallow_water", "last good checkpoint is step")


def test_resuming_into_another_model_is_refused(copy):
    patches = "tokens.patches=[[1, 1, 8, 8], [1, 1, 2, 2]]"
    fail(copy("--set", patches, "--resume"), "holds a run with tokens.patches", "another output.dir")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tokens.patches=[[4, 1, 8, 8]]", ["2D_rdb_NA_NA.h5", "does not divide", "1, 2"]),
        ("tokens={set: mix, rule: budget, refine: 9, patches: [[1,1,8,8],[1,1,4,4]]}", ["2D_rdb", "the nearest is 8"]),
        ("data.history=40", ["12", "2D_rdb_NA_NA.h5"]),
    ],
)
def test_a_mistake_of_the_user_is_one_sentence(run_yaml, override, words):
    fail(pretrain(run_yaml(), "--set", override), *words)


def test_a_described_run_says_how_attention_crosses_ranks_and_leaves_nothing_behind(run_yaml, tmp_path):
    config = run_yaml(
        model={"scheme": "svit"},
        parallel={"sequence_parallel_size": "auto", "memory_limit": 0.001},
    )
    # In float32 the activations would need four ranks.
    how = {"launcher": TWO_RANKS, "deepspeed_config": "ds_configs/bf16_zero1.json"}
    result = succeed(pretrain(config, "--describe", **how))
    assert "1 sequence groups of 2 ranks: attention exchanges tokens for heads among 1" in result.stdout
    assert "a rank holds" in result.stdout and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_sequence_group_resumes_to_the_losses_of_the_uninterrupted_run_bit_for_bit(run_yaml, tmp_path):
    config = run_yaml(parallel={"sequence_parallel_size": 2}, train={"schedule": "constant"}, model={"drop_path": 0.2})
    settings = {"launcher": TWO_RANKS, "deepspeed_config": "ds_configs/zero3.json"}
    whole, halves = (["--set", f"output.dir={tmp_path / name}"] for name in ("whole", "halves"))
    succeed(pretrain(config, *whole, **settings))
    succeed(pretrain(config, *halves, "--set", "train.steps=2", **settings))
    succeed(pretrain(config, *halves, "--resume", **settings))
    expected = metrics(tmp_path / "whole")
    assert len(expected) == 4 and metrics(tmp_path / "halves") == expected


def test_tensorboard_reads_the_numbers_of_the_run_by_step(run_yaml, tmp_path):
    reason = "the monitor needs tensorboard: pip install 'matey-pde[monitor]'"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    logs = {"enabled": True, "output_path": str(tmp_path / "logs"), "job_name": "demo"}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, "tensorboard": logs}))
    succeed(pretrain(run_yaml(), deepspeed_config=tmp_path / "ds.json"))
    found = events.EventAccumulator(str(tmp_path / "logs" / "demo")).Reload()
    for name in ("loss", "valid_vrmse", "grad_norm"):
        by_step = {each.step: each.value for each in found.Scalars(f"matey/{name}")}
        assert by_step == pytest.approx(metrics(tmp_path / "run", name), rel=1e-6)


GIVEN = ["wind", "depth"]


@pytest.fixture
def site(tmp_path):
    """Described data of waves with a wind, a depth and a viscosity."""
    random = np.random.default_rng(0)
    axes = ("sample", "time", "y", "x")
    wind = random.normal(size=(10, 12, 16, 16)).cumsum(axis=3)
    fields = {"h": (axes, 1 + 0.1 * wind.cumsum(axis=1)), "f": (axes, wind), "d": (axes[2:], random.random((16, 16)))}
    xarray.Dataset({**fields, "nu": ("sample", random.random(10))}).to_netcdf(tmp_path / "a.nc")
    given = {"wind": "f", "depth": {"array": "d", "axes": ["y", "x"]}}
    about = {"fields": {"height": "h"}, "given": given, "parameters": {"nu": {"array": "nu"}}}
    describe(tmp_path, flow("trajectory time y x", "open", system="waves", **about))
    return tmp_path


def run_of(site, name, **sections):
    """Write a run YAML."""
    tree = {
        "model": {"size": "micro", "given": GIVEN, "parameters": ["nu"]},
        "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]},
        "data": {"sets": [{"path": str(site)}], "history": 2, "lead_max": 2},
        "train": {"steps": 4, "micro_batch": 4, "unroll": 1, "unroll_share": 0.5, "validation_windows": 4},
        "output": {"dir": str(site / name)},
    }
    (site / f"{name}.yaml").write_text(yaml.safe_dump({**tree, **sections}))
    return site / f"{name}.yaml"


def test_ranks_that_read_parts_train_as_one_process_given_fields_and_bad_values(site):
    with xarray.load_dataset(site / "a.nc") as data:
        data["h"][::2, 6, 14, 3] = np.nan
        data["f"][1::2, 8, 1, 2] = np.nan
        data.to_netcdf(site / "a.nc")
    skipping = {"data": {"sets": [{"path": str(site)}], "history": 2, "lead_max": 2, "bad_values": "skip"}}
    one, two = run_of(site, "one", **skipping), run_of(site, "two", **skipping, parallel={"sequence_parallel_size": 2})
    succeed(pretrain(one))
    succeed(pretrain(two, launcher=TWO_RANKS))
    for key in ("loss", "valid_vrmse"):
        expected, found = (metrics(site / name, key) for name in ("one", "two"))
        assert found == pytest.approx(expected, rel=1e-4) and len(expected) > (key == "loss"), key


def test_a_run_is_told_a_forcing_and_parameters_and_so_is_its_forecast(site):
    config = run_of(site, "run", parallel={"sequence_parallel_size": 2})
    succeed(pretrain(config, launcher=TWO_RANKS))
    trained = load_trained(site / "run")
    network = trained.model.config
    assert (network.fields, network.given, network.parameters) == (["height", *GIVEN], GIVEN, ["nu"])
    assert trained.model.told.contract.weight.abs().max() > 0
    data = open_dataset(site)
    frames = list(matey.forecast(trained, data, steps=5, trajectories=[3]))
    assert frames[-1].values.shape == (1, 1, 1, 16, 16)
    without = list(matey.forecast(trained, data.with_given(()), steps=5, trajectories=[3]))
    assert not torch.equal(frames[0].values, without[0].values)
