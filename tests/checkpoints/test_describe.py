"""What is said of a checkpoint, and of everything that can be wrong with one: files, bytes, rights, code, names."""

import math
import os
import pickle
import shutil
import tempfile
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from matey.checkpoints.convert import convert, describe, write_universal
from matey.checkpoints.run_files import MODEL_STATES, ShardError, best_validation
from matey.checkpoints.source import WEIGHTS, Source, find_checkpoint, find_damage, open_checkpoint, open_shard
from tests.support.programs import said_to_nobody

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


@pytest.mark.parametrize(("kind", "stage"), [("zero0", "0"), ("muon1_universal", "1, now")])
def test_a_whole_checkpoint_is_described_without_a_complaint(two_ranks, kind, stage):
    source, run = find_checkpoint(two_ranks[0] / kind)
    text = describe(source, run)
    trained_by = "Muon on 221,184 of these, AdamW on the others\n" if "muon" in kind else "AdamW\n"
    for words in (
        "step        3\n",
        f"by 2 ranks with ZeRO stage {stage}",
        "782,290 trained in 83",
        "micro vit, mix patches",
        f"optimizer   {trained_by}",
        "water_height, activator, inhibitor",
        f"torch {torch.__version__}",
    ):
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
    for name in ("step_000009", ""):  # nor is the folder itself taken for one
        (tmp_path / "latest").write_text(name)
        with pytest.raises(ShardError, match=f"names '{name}', which is not beside it"):
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
    lines = [{"step": step, "valid_vrmse": error} for step, error in enumerate((0.3, 0.2, 0.25))]
    assert best_validation([]) is None and best_validation(lines)["step"] == 1
    later = ((7, 0.5), (8, 0.4), (9, math.nan))
    now = [{"step": step, "valid_vrmse": error, "chosen_by": "now"} for step, error in later]
    assert best_validation([*lines, *now])["step"] == 8


def test_a_shard_or_a_folder_that_may_not_be_read_is_not_called_damaged():
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        folder = Path(root) / "step_000002"
        folder.mkdir()
        torch.save({"global_steps": 2}, folder / MODEL_STATES)
        for path, read in ((folder / MODEL_STATES, open_shard), (folder, open_checkpoint)):
            path.chmod(0)
            said = said_to_nobody(lambda: read(path))  # noqa: B023 (called at once)
            assert said.startswith(f"{path} cannot be read (Permission denied)")
        folder.chmod(0o755)


def source_with(folder, name, stage):
    """A checkpoint without ZeRO, or a universal one, with one parameter of that name."""
    weights = {name: torch.ones(3)}
    moments = {"step": torch.tensor(2.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    adam = {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    common = {
        "global_steps": 2,
        "dp_world_size": 1,
        "ds_version": "0.19.0",
        "param_shapes": None if stage == 0 else [{name: torch.Size([3])}],
        "module": weights if stage == 0 else {},
        "trained": [[name]],
        "optimizer": adam,
    }
    folder.mkdir()
    return Source(folder, stage, common)


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["../../outside", "null\0"])
def test_a_parameter_whose_name_leads_elsewhere_writes_and_reads_nothing(tmp_path, name):
    source = source_with(tmp_path / "from", name, stage=0)
    with pytest.raises(ShardError, match="which is not a valid file name"):
        write_universal(source, tmp_path / "to" / "universal")
    assert written(tmp_path) == []
    (tmp_path / "outside").mkdir()
    torch.save({"param": torch.ones(3)}, tmp_path / "outside" / "fp32.pt")
    source = source_with(tmp_path / "universal", name, stage=None)
    fp32 = partial(convert, source, None, "fp32", tmp_path / "out", average=False, dtype="float32")
    for use in (source.files, partial(source.parameter, WEIGHTS, name), partial(source.whole, WEIGHTS), fp32):
        with pytest.raises(ShardError, match="which is not a valid file name"):
            use()
    assert written(tmp_path) == ["outside/fp32.pt"]
