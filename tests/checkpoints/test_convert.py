"""Checkpoints of real engines turned into models and weights."""

import json
import resource
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from matey import MateyModel
from matey.checkpoints.convert import ConversionError, convert
from matey.checkpoints.run_files import ABOUT, ShardError
from matey.checkpoints.source import AVERAGE, WEIGHTS, find_checkpoint
from tests.support.models import make_batch
from tests.support.programs import start


def exported(root, kind, out, form="huggingface", average=False, dtype="float32"):
    source, run = find_checkpoint(root / kind)
    convert(source, run, form, out, average=average, dtype=dtype)
    return source


@pytest.mark.parametrize("kind", ["zero0", "zero3", "frozen3", "bf16_1", "zero3_universal"])
def test_a_runs_model_an_export_and_bare_weights_are_what_the_optimizer_holds(two_ranks, tmp_path, kind):
    source = exported(two_ranks[0], kind, tmp_path / "model")
    exported(two_ranks[0], kind, tmp_path / "fp32", form="fp32")
    bare, expected = load_file(tmp_path / "fp32" / "model.safetensors"), source.whole(WEIGHTS)
    assert set(bare) >= set(expected) and all(torch.equal(bare[name], expected[name]) for name in expected)
    for folder in (tmp_path / "model", two_ranks[0] / kind / "model"):
        if folder.exists():  # which a converted run has not
            model = MateyModel.from_pretrained(folder)
            assert model.dtype == torch.float32 and set(model.state_dict()) == set(bare)
            assert all(torch.equal(value, bare[name]) for name, value in model.state_dict().items())


def test_whoever_may_read_other_files_of_a_run_may_read_its_weights(two_ranks, tmp_path):
    exported(two_ranks[0], "zero3", tmp_path / "model")
    exported(two_ranks[0], "zero3", tmp_path / "fp32", form="fp32")
    usual = (tmp_path / "model" / "config.json").stat().st_mode
    files = [*two_ranks[0].glob("zero3/**/*.safetensors"), *tmp_path.glob("*/*.safetensors")]
    assert len(files) >= 5 and {file.stat().st_mode for file in files} == {usual}  # a model, two averages, two exports


def test_a_model_may_hold_the_average_in_bfloat16_and_predicts(two_ranks, tmp_path):
    source = exported(two_ranks[0], "zero3", tmp_path / "model", average=True, dtype="bfloat16")
    model, expected = MateyModel.from_pretrained(tmp_path / "model"), source.whole(AVERAGE)
    assert all(torch.equal(value, expected[name].bfloat16()) for name, value in model.state_dict().items())
    batch = make_batch(num_samples=1)
    in_float32 = MateyModel.from_pretrained(tmp_path / "model", dtype=torch.float32)
    half, single = model.predict(batch), in_float32.predict(batch)
    assert (half - single).norm() < 0.02 * single.norm()
    assert "moving average of the weights (decay 0.6) after step 3" in (tmp_path / "model" / "README.md").read_text()


def test_a_card_holds_what_the_run_said_of_itself_its_errors_and_its_command(two_ranks, tmp_path):
    source, run = find_checkpoint(two_ranks[0] / "zero0")
    numbers = {"valid_vrmse_by_system": {"swe": 0.125}, "valid_persistence_by_system": {"swe": 0.5}}
    (run / "metrics.jsonl").write_text(json.dumps({"step": 2, "valid_vrmse": 0.25, **numbers}) + "\n")
    (run / ABOUT).write_text("8/1/1 train/valid/test trajectories; data/<script>\n")
    convert(source, run, "huggingface", tmp_path / "model", average=False, dtype="float32")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "8/1/1 train/valid/test trajectories; data/&lt;script>" in card and "| swe | 0.1250 | 0.5000 |" in card
    assert "on 2 ranks: " in card and "engine_cases.py" in card and "from_pretrained" in card


def test_what_cannot_be_done_is_a_sentence_and_leaves_nothing(two_ranks, tmp_path):
    source, run = find_checkpoint(two_ranks[0] / "zero3")
    out = tmp_path / "out"

    def refuse(words, kind=ConversionError, source=source, run=run, form="huggingface", **kwargs):
        with pytest.raises(kind, match=words):
            convert(source, run, form, out, **{"average": False, "dtype": "float32", **kwargs})
        assert not out.exists() and list(tmp_path.iterdir()) in ([], [tmp_path / "bare"])

    refuse("keeps float32; --dtype bfloat16 is for --to huggingface", form="fp32", dtype="bfloat16")
    refuse("does not lie in a run's checkpoints/", run=None)
    bare = tmp_path / "bare"
    bare.mkdir()
    without = replace(source, folder=bare, common=source.common | {"has_average": False})
    refuse("has no moving average; train with train.ema", source=without, average=True)
    refuse("missing; copy it again", ShardError, source=replace(source, folder=bare))
    universal, _ = find_checkpoint(two_ranks[0] / "zero3_universal")
    refuse("universal already", ShardError, source=universal, form="universal")
    out.mkdir()
    with pytest.raises(ConversionError, match="exists already"):
        convert(source, run, "fp32", out, average=False, dtype="float32")


@pytest.mark.slow
def test_universal_files_equal_those_of_deepspeeds_own_converter(two_ranks, tmp_path):
    root, _ = two_ranks
    for kind in ("zero3", "bf16_1"):
        source = root / kind / "checkpoints" / "step_000003"
        command = ["-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state", "--input_folder", source]
        result = start([sys.executable, *command, "--output_folder", tmp_path / kind])
        assert result.returncode == 0, result.stderr
        ours = root / f"{kind}_universal" / "checkpoints" / "step_000003" / "zero"
        theirs = sorted((tmp_path / kind / "zero").glob("*/*.pt"))
        assert len(theirs) > 200
        for path in theirs:
            expected, got = (torch.load(file) for file in (path, ours / path.relative_to(tmp_path / kind / "zero")))
            expected, got = (value["param"] if isinstance(value, dict) else value for value in (expected, got))
            assert torch.equal(expected.flatten(), got.flatten()), path  # from ZeRO 3 theirs are flat


@pytest.mark.parametrize("form", ["huggingface", "fp32", "universal"])
def test_a_disk_that_is_full_is_a_sentence_and_leaves_no_folder(two_ranks, tmp_path, form):
    source, run = find_checkpoint(two_ranks[0] / "zero3")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # as a disk with 5000 bytes left
    try:
        with pytest.raises(ConversionError, match="Cannot write .*out .*; make room, or choose another --out"):
            convert(source, run, form, tmp_path / "out", average=False, dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_the_run_of_a_checkpoint_is_found_whose_folder_is_a_link(two_ranks, tmp_path):
    run, elsewhere = shutil.copytree(two_ranks[0] / "zero0", tmp_path / "run"), tmp_path / "scratch" / "of_the_run"
    elsewhere.parent.mkdir()
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    assert [find_checkpoint(path)[1] for path in (run, run / "checkpoints")] == [run, run]
    assert find_checkpoint(elsewhere)[1] is None
