"""Saving and loading on real ranks, where one of them is lost or its file is of another step."""

import shutil
import sys

import pytest
import torch
import yaml

from tests.support.programs import TWO_RANKS, environments, kill, preloaded
from tests.support.runs import fail, pretrain, succeed


@pytest.mark.slow
@pytest.mark.parametrize(("what", "place"), [("save", "save"), ("load", "load_checkpoint")])
def test_a_lost_rank_is_not_taken_for_a_full_disk_or_a_damaged_file(tmp_path, what, place):
    # Without a launcher: it would end rank 0 before that has said anything.
    command = [sys.executable, "-m", "tests.train.lost_rank", what, str(tmp_path / "run")]
    with (tmp_path / "0.txt").open("w+") as first, (tmp_path / "1.txt").open("w+") as second:
        ranks = [
            preloaded().start(command, variables, output, output)
            for variables, output in zip(environments(2), (first, second), strict=True)
        ]
        try:
            codes = [rank.wait(120) for rank in ranks]
        finally:
            for rank in ranks:
                kill(rank)
        first.seek(0)
        said = first.read()
    assert codes == [1, 1], said
    assert "[rank 0] Lost another rank" in said and f"{place} (matey/train/" in said, said
    assert "RunError" not in said and "Free some space" not in said and "an older one" not in said
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step_000001"


@pytest.mark.slow
def test_a_ranks_own_slice_of_the_module_of_another_step_is_refused(run_yaml, tmp_path):
    ranks = {"launcher": TWO_RANKS, "deepspeed_config": "ds_configs/zero3.json"}
    succeed(pretrain(run_yaml(), **ranks))
    name = "zero_pp_rank_1_mp_rank_00_model_states.pt"
    older, newer = (tmp_path / "run" / "checkpoints" / f"step_{step:06d}" / name for step in (2, 4))
    shutil.copy(older, newer)
    result = pretrain(run_yaml(train={"steps": 6}), "--resume", **ranks)
    assert result.returncode != 0 and f"[rank 1] error: {newer} is of step 2, zero_pp_rank_0" in result.stderr
    assert "an older one can be named in" in result.stderr and "cannot be loaded" not in result.stderr


@pytest.mark.parametrize("ranks", [{}, pytest.param({"launcher": TWO_RANKS}, marks=pytest.mark.slow)])
def test_a_run_that_goes_on_decays_and_validates_as_its_settings_now_say(run_yaml, tmp_path, ranks):
    succeed(pretrain(run_yaml(), **ranks))
    changed = run_yaml(
        train={"steps": 6, "weight_decay": 0.9, "betas": [0.5, 0.6], "clip_norm": 0.01}, data={"lead_max": 4}
    )
    result = succeed(pretrain(changed, "--resume", **ranks))
    assert "What is validated has changed since step 4: the best weights are chosen anew" in result.stdout
    assert "Step 6: validation NRMSE" in result.stdout and "the best so far" in result.stdout
    folder = tmp_path / "run" / "checkpoints" / "step_000006"
    (path, *_) = folder.glob("*optim_states.pt")
    saved = torch.load(path, weights_only=False)["optimizer_state_dict"]
    assert saved["clip_grad"] == 0.01
    groups = saved["base_optimizer_state"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.9, 0.0}
    assert all(tuple(group["betas"]) == (0.5, 0.6) for group in groups)


def test_a_rate_may_come_to_a_parts_own_and_other_groups_than_saved_are_named(run_yaml, tmp_path):
    own = {"groups": {"blocks": {"learning_rate": 2e-3, "weight_decay": 0.2}}, "weight_decay": 0.1}
    flags = {"deepspeed_config": "ds_configs/zero0.json"}
    succeed(pretrain(run_yaml(train=own), **flags))
    alike = own | {"learning_rate": 2e-3, "weight_decay": 0.2}
    succeed(pretrain(run_yaml(train=alike | {"steps": 6}), "--resume", **flags))
    config = tmp_path / "run" / "config.yaml"
    other = {"blocks": {"learning_rate": 2e-3}, "decoder": {"learning_rate": 1e-3}}
    tree = yaml.safe_load(config.read_text())
    tree["train"]["groups"] = other
    config.write_text(yaml.safe_dump(tree))
    result = pretrain(run_yaml(train=own | {"steps": 8, "groups": other}), "--resume", **flags)
    fail(result, "step_000006 cannot be loaded (loaded state dict has a different number of parameter groups)")
