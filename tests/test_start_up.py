"""Commands answer soon: what they say of arguments and files needs neither PyTorch nor DeepSpeed, which take seconds."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import imports_of
from tests.support.small_files import write_swe

COMMANDS = sorted([*(ROOT / "launch").glob("*.py"), *(ROOT / "tools").glob("*.py")])


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_and_an_unknown_flag_need_neither_pytorch_nor_deepspeed(path):
    for flag, expected in (("--help", 0), ("--no-such-flag", 2)):
        code, printed, imported = imports_of(path, flag)
        assert code == expected and "Traceback" not in printed, printed
        assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_script_outside_its_environment_says_how_to_activate_it(path):
    result = subprocess.run([sys.executable, "-S", path], capture_output=True, text=True)  # -S: no installed packages
    assert result.returncode == 1 and "Activate its environment: source .venv/bin/activate" in result.stderr


RUN = ["--config", "launch/runs/demo.yaml", "--deepspeed_config", "ds_configs/zero1.json"]
MODEL = "models/matey-micro"
NO_DATA = "data.sets=[{path: nowhere}]"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["launch/pretrain.py", *RUN, "--config", "nowhere.yaml"], "Cannot read the configuration nowhere.yaml"),
        (
            ["launch/finetune.py", *RUN, "--deepspeed_config", "no.json"],
            "Cannot read the DeepSpeed configuration no.json",
        ),
        (["launch/evaluate.py", "--checkpoint", "nowhere", "--out", "x"], "There is no folder nowhere"),
        (["tools/convert_checkpoint.py", "--describe", "nowhere"], "There is no folder nowhere"),
        (["tools/plan.py", *RUN, "--nodes", "1", "--machine", "moon"], "moon"),
        (
            ["tools/reproduce.py", "data_efficiency", "--modes", "none"],
            "--modes: expected some of all, prepost, lora, head",
        ),
        (
            ["tools/reproduce.py", "scaling", "--ranks", "1", "--config", "nowhere.yaml"],
            "Cannot read the configuration",
        ),
        (["tools/show_tokens.py", "nowhere", "--config", "demo", "--out", "x.png"], "nowhere does not exist"),
        (["tools/simulate.py", "moon", "--out", "x"], "there is no system 'moon'"),
        (
            ["tools/simulate.py", "compressible_rand", "--out", "x", "--mach", "99"],
            "setting mach must be above 0 and at most 10, got 99",
        ),
        (["tools/reproduce.py", "peers", "--data", "nowhere"], "nowhere does not exist"),
        (
            ["launch/evaluate.py", "--checkpoint", "models/matey-micro", "--out", "x", "--device", "tpu"],
            "--device takes auto, cpu, cuda or cuda:1; got 'tpu'",
        ),
        (["launch/finetune.py", *RUN], "Name the run or model to start from: --pretrained RUN_OR_MODEL"),
        (["launch/finetune.py", *RUN, "--pretrained", "none"], "the run YAML has to state"),
        (["launch/finetune.py", *RUN, "--pretrained", "docs"], "--pretrained: docs is neither a run"),
        (["launch/pretrain.py", *RUN, "--set", "finetune={pretrained: none}"], "has a section 'finetune'"),
        (["launch/pretrain.py", *RUN, "--set", NO_DATA], "nowhere does not exist"),
        (["launch/pretrain.py", *RUN, "--set", "data.sets=[{path: ds_configs}]"], "ds_configs holds no data file"),
        (["launch/evaluate.py", "--checkpoint", MODEL, "--out", "x"], "is a model without a run, which names no data"),
        (["launch/predict.py", "--checkpoint", MODEL, "--out", "x.nc", "--data", "nowhere"], "nowhere does not exist"),
        (
            ["tools/show_forecast.py", "--checkpoint", MODEL, "--out", "x.png", "--data", "nowhere"],
            "nowhere does not exist",
        ),
        (
            ["tools/plan.py", *RUN, "--nodes", "1", "--machine", "cpu", "--set", NO_DATA],
            "The data of this run does not exist",
        ),
    ],
    ids=lambda value: value[0].split("/")[1] if isinstance(value, list) else None,
)
def test_a_mistake_is_told_before_pytorch_or_deepspeed_is_imported(command, words):
    code, printed, imported = imports_of(*command)
    assert code == 2 and words in printed and "Traceback" not in printed, printed
    assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


def test_data_is_inspected_without_pytorch_or_deepspeed(tmp_path):
    path = write_swe(tmp_path / "data" / "a.h5", 2)
    code, printed, imported = imports_of("tools/inspect_data.py", path, "--plot", "--out", tmp_path / "sheet.png")
    assert code == 0 and "shallow_water" in printed and (tmp_path / "sheet.png").exists(), printed
    assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


def test_data_that_is_not_there_is_said_without_matplotlib():
    code, printed, imported = imports_of("tools/inspect_data.py", "nowhere")
    assert code == 1 and "nowhere does not exist" in printed, printed
    assert imported.isdisjoint({"torch", "deepspeed", "matplotlib", "scipy"})


def test_what_a_described_set_names_is_looked_for_before_pytorch_is_imported(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "system: mine\nfiles: 'none*.h5'\naxes: [time, y, x]\nfields: {u: {array: u}}\n"
        "spacing: {y: 1, x: 1}\ntime_step: 1\nboundary: {y: wall, x: wall}\n"
    )
    code, printed, imported = imports_of(
        "launch/pretrain.py", *RUN, "--set", f"data.sets=[{{path: {tmp_path / 'mine.yaml'}}}]"
    )
    assert code == 2 and "no file matches 'none*.h5'" in printed, printed
    assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


def test_the_data_of_a_run_is_looked_for_before_pytorch_is_imported(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text((ROOT / RUN[1]).read_text().replace("data/demo/", "nowhere/"))
    code, printed, imported = imports_of("launch/evaluate.py", "--checkpoint", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "does not exist" in printed, printed
    assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("/proc/x", "Cannot write to /proc/x (No such file or directory); choose another output.dir"),
        ("docs", "was not made by a run"),
        ("README.md", "which is no folder"),
    ],
)
def test_a_folder_that_is_not_the_runs_is_refused_before_pytorch_is_imported(tmp_path, folder, words):
    data = write_swe(tmp_path / "a.h5", 2)
    settings = [f"data.sets=[{{path: {data}}}]", f"output.dir={folder}"]
    code, printed, imported = imports_of(
        "launch/pretrain.py", *RUN, *(word for one in settings for word in ("--set", one))
    )
    assert code == 2 and words in printed and "Started" not in printed, printed
    assert imported.isdisjoint({"torch", "deepspeed", "transformers"})


@pytest.mark.parametrize("settings", [["--config", "nowhere.yaml"], ["--set", NO_DATA]])
def test_the_first_of_several_ranks_tells_a_mistake_before_pytorch_is_imported(settings):
    command = [sys.executable, "-X", "importtime", "launch/pretrain.py", *RUN, *settings]
    ranks = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ranks)
    assert result.returncode == 2 and "[rank 0] error: " in result.stderr and "nowhere" in result.stderr
    assert not re.search(r"\| +(torch|deepspeed)$", result.stderr, re.MULTILINE)
