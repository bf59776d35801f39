"""Saving and loading on real ranks, where one of them is lost or its file is of another step."""

import sys

import pytest
import torch

from tests.support.programs import TWO_RANKS, environments, kill, preloaded
from tests.support.runs import pretrain, succeed


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


@pytest.mark.parametrize("ranks", [{}, pytest.param({"launcher": TWO_RANKS}, marks=pytest.mark.slow)])
def test_a_run_that_goes_on_decays_and_validates_as_its_settings_now_say(run_yaml, tmp_path, ranks):
    succeed(pretrain(run_yaml(), **ranks))
    changed = run_yaml(
        train={"steps": 6, "weight_decay": 0.9, "betas": [0.5, 0.6], "clip_norm": 0.01}, data={"lead_max": 4}
    )
    result = succeed(pretrain(changed, "--resume", **ranks))
    assert "What is validated has changed since step 4: the best weights are chosen anew" in result.stdout
    assert "Step 6: validation VRMSE" in result.stdout and "the best so far" in result.stdout
    folder = tmp_path / "run" / "checkpoints" / "step_000006"
    (path, *_) = folder.glob("*optim_states.pt")
    saved = torch.load(path, weights_only=False)["optimizer_state_dict"]
    assert saved["clip_grad"] == 0.01
    groups = saved["base_optimizer_state"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.9, 0.0}
    assert all(tuple(group["betas"]) == (0.5, 0.6) for group in groups)
