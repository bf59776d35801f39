"""Saving and loading on real ranks, where one of them is lost or its file is of another step."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import TWO_RANKS
from tests.support.runs import pretrain, succeed


@pytest.mark.slow
@pytest.mark.parametrize(("what", "place"), [("save", "save"), ("load", "load_checkpoint")])
def test_a_lost_rank_is_not_taken_for_a_full_disk_or_a_damaged_file(tmp_path, what, place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Without a launcher: it would end rank 0 before that has said anything.
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.lost_rank", what, str(tmp_path / "run")]
    ranks = [
        subprocess.Popen(
            command, cwd=ROOT, env={**shared, "RANK": number, "LOCAL_RANK": number}, stderr=subprocess.PIPE, text=True
        )
        for number in ("0", "1")
    ]
    _, said = ranks[0].communicate(timeout=120)
    assert ranks[1].wait(timeout=120) == 1 and ranks[0].returncode == 1, said
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
