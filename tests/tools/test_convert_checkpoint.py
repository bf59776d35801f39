"""The commands that convert checkpoints and data, as a user starts them."""

import os
import shutil
import sys

import pytest
import torch

from matey.data import open_dataset
from tests.support.programs import TWO_RANKS, start
from tests.support.runs import metrics, pretrain, succeed
from tests.support.small_files import write_swe


def convert(*arguments):
    return start([sys.executable, "tools/convert_checkpoint.py", *arguments])


def test_a_run_becomes_a_model(run_yaml, tmp_path):
    succeed(pretrain(run_yaml(train={"steps": 1, "ema": 0.9})))
    (tmp_path / "model.new").mkdir()  # somebody's
    result = succeed(convert(tmp_path / "run", "--to", "huggingface", "--ema", "--out", tmp_path / "model"))
    assert f"MateyModel.from_pretrained('{tmp_path}/model')" in result.stdout and "Reading ema" in result.stderr
    assert (tmp_path / "model.new").exists() and not (tmp_path / ".model.unfinished").exists()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "shallow_water: water_height; 8/1/1 train/valid/test trajectories" in card
    assert "launch/pretrain.py --deepspeed_config" in card and "| shallow_water | 0." in card


@pytest.mark.slow
def test_a_whole_checkpoint_is_called_so_and_a_damaged_file_is_named(run_yaml, tmp_path):
    succeed(pretrain(run_yaml(train={"steps": 1})))
    assert "files are whole" in succeed(convert("--describe", tmp_path / "run")).stdout
    shard = tmp_path / "run" / "checkpoints" / "step_000001" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    shard.write_bytes(shard.read_bytes()[:-100])
    result = convert("--describe", tmp_path / "run")
    assert result.returncode == 1 and f"corrupt: {shard}" in result.stdout


@pytest.mark.slow
def test_two_ranks_with_zero3_go_on_as_one_with_zero1_and_as_a_sequence_group(run_yaml, tmp_path):
    settings = {"steps": 4, "schedule": "constant", "micro_batch": 2, "ema": 0.9}
    two = {"launcher": TWO_RANKS}
    config, zero3 = run_yaml(train=settings), {"deepspeed_config": "ds_configs/zero3.json"}
    succeed(pretrain(config, "--set", "train.steps=2", **two, **zero3))
    for name in ("one", "group"):
        succeed(convert(tmp_path / "run", "--to", "universal", "--out", tmp_path / name))
    succeed(pretrain(config, "--resume", **two, **zero3))
    expected = (metrics(tmp_path / "run"), metrics(tmp_path / "run", "valid_vrmse"))

    refused = pretrain(config, "--resume", deepspeed_config="ds_configs/zero1.json")
    assert refused.returncode == 2 and f"--to universal --out {tmp_path}/run_universal`" in refused.stderr

    config = run_yaml(train={**settings, "micro_batch": 4}, output={"dir": str(tmp_path / "one")})
    result = succeed(pretrain(config, "--resume", deepspeed_config="ds_configs/zero1.json"))
    assert "Going on after step 2" in result.stdout
    config = run_yaml(
        train={**settings, "micro_batch": 4},
        output={"dir": str(tmp_path / "group")},
        parallel={"sequence_parallel_size": 2},
    )
    succeed(pretrain(config, "--resume", **two, deepspeed_config="ds_configs/zero1.json"))
    for name in ("one", "group"):
        resumed = (metrics(tmp_path / name), metrics(tmp_path / name, "valid_vrmse"))
        for before, after in zip(expected, resumed, strict=True):
            assert after == pytest.approx(before, rel=1e-6), name
    # What was saved after the resume is DeepSpeed's again, and goes on as it is.
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "step_000002")
    config = run_yaml(train={**settings, "micro_batch": 4, "steps": 5}, output={"dir": str(tmp_path / "one")})
    succeed(pretrain(config, "--resume", deepspeed_config="ds_configs/zero1.json"))


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.slow
def test_resuming_runs_no_code_from_a_checkpoint_of_deepspeed(run_yaml, tmp_path):
    zero3 = {"deepspeed_config": "ds_configs/zero3.json"}
    succeed(pretrain(run_yaml(train={"steps": 1}), **zero3))
    shard = tmp_path / "run" / "checkpoints" / "step_000001" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    whole = shard.read_bytes()
    state = torch.load(shard, weights_only=False)
    state["optimizer_state_dict"]["overflow"] = Payload(tmp_path / "made_by_a_pickle")
    torch.save(state, shard)
    result = pretrain(run_yaml(train={"steps": 2}), "--resume", **zero3)
    assert (
        result.returncode == 2
        and "mkdir, which is no part of a checkpoint" in result.stderr
        and "Traceback" not in result.stderr
    )
    assert not (tmp_path / "made_by_a_pickle").exists()
    shard.write_bytes(whole)
    succeed(pretrain(run_yaml(train={"steps": 2}), "--resume", **zero3))


def convert_data(*words):
    return start([sys.executable, "tools/convert_data.py", *words])


def test_data_is_converted_split_and_opened_again(tmp_path):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 10)
    done = convert_data(tmp_path / "swe", "--out", tmp_path / "out", "--split", "0.5", "0.3", "0.2")
    assert done.returncode == 0, done.stderr
    assert f"Wrote {tmp_path / 'out'}: 5 train, 3 valid, 2 test trajectories of shallow_water." in done.stdout
    assert open_dataset(tmp_path / "out").num_trajectories == 10
    again = convert_data(tmp_path / "swe", "--out", tmp_path / "out")
    assert again.returncode == 2 and "exists already; choose another --out" in again.stderr
    missing = convert_data(tmp_path / "nowhere", "--out", tmp_path / "other")
    assert missing.returncode == 2 and "nowhere" in missing.stderr and "Traceback" not in missing.stderr
