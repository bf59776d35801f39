"""What is said of a checkpoint, and of everything that can be wrong with one.

What is read of a run's log.
"""

import math
import os
import pickle
import shutil
import zipfile
from contextlib import suppress

import pytest
import torch

from matey.checkpoints.convert import describe
from matey.checkpoints.run_files import ShardError, best_validation
from matey.checkpoints.source import find_checkpoint, find_damage, open_shard

SHARD = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
MODULE = "zero_pp_rank_1_mp_rank_00_model_states.pt"
AVERAGE = "ema_rank_00001.safetensors"


@pytest.fixture
def checkpoint(two_ranks, tmp_path):
    """A copy of what two ranks saved with ZeRO 3, to be spoilt: the folder of its step."""
    shutil.copytree(two_ranks[0] / "zero3", tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "step_000003"


def damage(folder):
    return find_damage(find_checkpoint(folder)[0])


@pytest.mark.parametrize(
    ("kind", "stage"),
    [("zero0", "0"), ("bf16_1", "1"), ("zero3", "3"), ("zero3_universal", "3, now"), ("muon1_universal", "1, now")],
)
def test_a_whole_checkpoint_is_described_without_a_complaint(two_ranks, kind, stage):
    source, run = find_checkpoint(two_ranks[0] / kind)
    text = describe(source, run)
    for words in (
        "step        3\n",
        f"by 2 ranks with ZeRO stage {stage}",
        "782,290 trained in 83",
        "micro vit, mix patches",
        "data/made_up",
        "optimizer   Muon on 221,184 of these, AdamW on the others\n" if "muon" in kind else "optimizer   AdamW\n",
    ):
        assert words in text, text
    for words in ("water_height, activator, inhibitor", "moving average", f"torch {torch.__version__}", "deepspeed 0."):
        assert words in text, text
    assert find_damage(source) == []


@pytest.mark.parametrize("name", [SHARD, MODULE, AVERAGE])
def test_a_missing_a_short_and_an_older_file_are_named(checkpoint, name):
    path = checkpoint / name
    whole = path.read_bytes()
    path.unlink()
    assert [str(path) in sentence and "missing" in sentence for sentence in damage(checkpoint)] == [True]
    path.write_bytes(whole[: len(whole) // 2])
    assert [str(path) in sentence and "cut short" in sentence for sentence in damage(checkpoint)] == [True]
    shutil.copy(checkpoint.with_name("step_000002") / name, path)
    assert [f"{path} is of step 2" in sentence and "step 3" in sentence for sentence in damage(checkpoint)] == [True]


def test_a_changed_byte_is_found_by_its_checksum(checkpoint):
    path = checkpoint / SHARD
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    spoilt = bytearray(path.read_bytes())
    spoilt[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(spoilt)
    (sentence,) = damage(checkpoint)
    assert str(path) in sentence and "checksum" in sentence


def test_what_is_no_checkpoint_is_a_sentence(tmp_path):
    for path, words in ((tmp_path / "nowhere", "There is no folder"), (tmp_path, "holds no checkpoint")):
        with pytest.raises(ShardError, match=words):
            find_checkpoint(path)
    (tmp_path / "latest").write_text("step_000009")
    with pytest.raises(ShardError, match="names 'step_000009', which is not beside it"):
        find_checkpoint(tmp_path)


class Payload:
    """What an attacker would put into a pickle."""

    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (torch.save, "holds posix.mkdir, which is no part of a checkpoint"),
        (lambda value, path: path.write_bytes(pickle.dumps(value)), "corrupt"),
    ],
)
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, write, words):
    monkeypatch.chdir(tmp_path)
    write({"optimizer_state_dict": Payload()}, tmp_path / SHARD)
    with pytest.raises(ShardError, match=words):
        open_shard(tmp_path / SHARD)
    assert not (tmp_path / "made_by_a_pickle").exists()
    with suppress(RuntimeError):
        torch.load(tmp_path / SHARD, weights_only=False)
    assert (tmp_path / "made_by_a_pickle").exists(), "the payload works where it is let"


def test_the_best_validation_is_of_what_is_validated_now():
    lines = [{"step": step, "valid_nrmse": error} for step, error in enumerate((0.3, 0.2, 0.25))]
    assert best_validation([]) is None and best_validation(lines)["step"] == 1
    now = [
        {"step": step, "valid_nrmse": error, "chosen_by": "now"} for step, error in ((7, 0.5), (8, 0.4), (9, math.nan))
    ]
    assert best_validation([*lines, *now])["step"] == 8
