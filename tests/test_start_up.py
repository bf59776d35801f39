"""Commands answer soon: what they say of arguments and files needs neither PyTorch nor DeepSpeed, which take seconds."""

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


RUN = ["--config", "launch/runs/demo.yaml", "--deepspeed_config", "ds_configs/zero1.json"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["launch/pretrain.py", *RUN, "--config", "nowhere.yaml"], "Cannot read the configuration nowhere.yaml"),
        (["launch/pretrain.py", *RUN, "--set", "train.stepz=3"], "unknown key 'train.stepz'"),
        (
            ["launch/finetune.py", *RUN, "--deepspeed_config", "no.json"],
            "Cannot read the DeepSpeed configuration no.json",
        ),
        (["launch/evaluate.py", "--checkpoint", "nowhere", "--out", "x"], "There is no folder nowhere"),
        (
            ["launch/predict.py", "--checkpoint", "nowhere", "--data", "x", "--out", "x.nc"],
            "There is no folder nowhere",
        ),
        (["tools/convert_checkpoint.py", "--describe", "nowhere"], "There is no folder nowhere"),
        (["tools/plan.py", *RUN, "--nodes", "1", "--machine", "moon"], "moon"),
        (["tools/reproduce.py", "data_efficiency", "--modes", "none"], "--modes takes all, prepost, lora, head"),
        (["tools/scaling_study.py", "run", "--out", "nowhere"], "nowhere holds no study"),
        (["tools/show_tokens.py", "nowhere", "--out", "x.png"], "nowhere does not exist"),
        (["tools/simulate.py", "moon", "--out", "x"], "No system 'moon'"),
        (
            ["tools/simulate.py", "thermals", "--out", "x", "--frames", "1"],
            "number of frames must be at least 2, got 1",
        ),
        (
            ["tools/simulate.py", "rand", "--out", "x", "--mach", "99"],
            "setting mach must be above 0 and at most 10, got 99",
        ),
        (["tools/reproduce.py", "peers", "--data", "nowhere"], "nowhere does not exist"),
        (
            ["launch/evaluate.py", "--checkpoint", "models/matey-micro", "--out", "x", "--device", "tpu"],
            "--device takes auto, cpu, cuda or cuda:1; got 'tpu'",
        ),
        (["tools/benchmark.py", "step", "--tokens", "mul", "--patches", "8"], "splits patches"),
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
