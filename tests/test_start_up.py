"""Commands answer soon: what they say of arguments and files needs neither PyTorch nor DeepSpeed, which take seconds."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from matey.commands.subcommands import scripts
from matey.commands.train import mistyped
from matey.config import ConfigError, load_config, load_deepspeed_config
from matey.config.loading import configurations
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, imports_of, start_ranks
from tests.support.small_files import write_swe

COMMANDS = sorted([*(ROOT / "launch").glob("*.py"), *(ROOT / "tools").glob("*.py")])


HEAVY = {"torch", "deepspeed", "transformers"}


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_and_an_unknown_flag_need_neither_pytorch_nor_deepspeed(path):
    for flag, expected in (("--help", 0), ("--no-such-flag", 2)):
        code, printed, imported = imports_of(path, flag)
        assert code == expected and "Traceback" not in printed, printed
        assert imported.isdisjoint(HEAVY)


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
        (["launch/evaluate.py", "--checkpoint", "nowhere", "--out", "x"], "There is no folder nowhere"),
        (["tools/plan.py", *RUN, "--nodes", "1", "--machine", "moon"], "moon"),
        (["tools/reproduce.py", "data_efficiency", "--modes", "none"], "--modes: expected some of all, prepost"),
        (["tools/show_tokens.py", "nowhere", "--config", "demo", "--out", "x.png"], "nowhere does not exist"),
        (["tools/show_tokens.py", "nowhere", "--config", "demo", "--out", "mesh.xyz"], "a name that ends in .png"),
        (["tools/inspect_data.py", "nowhere", "--plo"], "unrecognized arguments: --plo"),
        (["tools/simulate.py", "moon", "--out", "x"], "there is no system 'moon'"),
        (["launch/finetune.py", *RUN], "Name the run or model to start from: --pretrained RUN_OR_MODEL"),
        (["launch/pretrain.py", *RUN, "--set", NO_DATA], "nowhere does not exist"),
        (["launch/evaluate.py", "--checkpoint", MODEL, "--out", "x"], "is a model without a run, which names no data"),
        (["launch/predict.py", "--checkpoint", MODEL, "--out", "x.nc", "--data", "nowhere"], "nowhere does not exist"),
        (
            ["tools/show_forecast.py", "--checkpoint", MODEL, "--out", "x.png", "--data", "nowhere"],
            "nowhere does not exist",
        ),
        (
            ["tools/plan.py", *RUN, "--nodes", "1", "--machine", "cpu", "--set", NO_DATA],
            "data of this run does not exist",
        ),
    ],
    ids=lambda value: value[0].split("/")[1] if isinstance(value, list) else None,
)
def test_a_mistake_is_told_before_pytorch_or_deepspeed_is_imported(command, words):
    code, printed, imported = imports_of(*command)
    assert code == 2 and words in printed and "Traceback" not in printed, printed
    assert imported.isdisjoint(HEAVY)


def test_data_is_inspected_without_pytorch_or_deepspeed(tmp_path):
    path = write_swe(tmp_path / "data" / "a.h5", 2)
    code, printed, imported = imports_of("tools/inspect_data.py", path, "--plot", "--out", tmp_path / "sheet.png")
    assert code == 0 and "shallow_water" in printed and (tmp_path / "sheet.png").exists(), printed
    assert imported.isdisjoint(HEAVY)


def test_the_data_of_a_run_is_looked_for_before_pytorch_is_imported(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text((ROOT / RUN[1]).read_text().replace("data/demo/", "nowhere/"))
    code, printed, imported = imports_of("launch/evaluate.py", "--checkpoint", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "does not exist" in printed, printed
    assert imported.isdisjoint(HEAVY)


def test_a_folder_that_is_not_the_runs_is_refused_before_pytorch_is_imported(tmp_path):
    settings = [f"data.sets=[{{path: {write_swe(tmp_path / 'a.h5', 2)}}}]", "output.dir=docs"]
    code, printed, imported = imports_of("launch/pretrain.py", *RUN, *(w for each in settings for w in ("--set", each)))
    assert code == 2 and "was not made by a run" in printed and "Started" not in printed, printed
    assert imported.isdisjoint(HEAVY)


def test_the_first_of_several_ranks_tells_a_mistake_before_pytorch_is_imported():
    command = [sys.executable, "-X", "importtime", "launch/pretrain.py", *RUN, "--set", NO_DATA]
    ranks = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ranks)
    assert result.returncode == 2 and "[rank 0] error: " in result.stderr and "nowhere" in result.stderr
    assert not re.search(r"\| +(torch|deepspeed)$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("there", "asked", "is_slip"),
    [
        ("demo", "dmeo", True),
        ("mine", "mien", True),
        ("run_pretrain_2", "run_pretrin_2", True),
        ("seed_1", "seed_2", False),
        ("vit_b", "svit_b", False),
        ("run_a", "run_b", False),
        ("thermals", "thermals_long", False),
    ],
)
def test_a_slip_in_the_name_of_a_run_to_resume_is_told_from_a_new_run(tmp_path, there, asked, is_slip):
    (tmp_path / there).mkdir()
    (tmp_path / there / "config.yaml").touch()
    assert mistyped(tmp_path / asked) == (tmp_path / there if is_slip else None)
    assert mistyped(tmp_path / there) is None


def test_resuming_a_mistyped_run_is_refused_with_the_name_that_was_meant(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.yaml").touch()
    settings = [f"data.sets=[{{path: {write_swe(tmp_path / 'a.h5', 2)}}}]", f"output.dir={tmp_path / 'dmeo'}"]
    code, printed, _ = imports_of("launch/pretrain.py", *RUN, "--resume", "--set", settings[0], "--set", settings[1])
    assert code == 2 and f"did you mean the run {tmp_path / 'demo'}?" in printed, printed


def matey(*words, cwd=ROOT):
    command = [sys.executable, "-m", "matey", *map(str, words)]
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_script_is_a_subcommand():
    stems = {path.stem for folder in ("launch", "tools") for path in (ROOT / folder).glob("*.py")}
    assert {path.stem for path in scripts().values()} == stems
    asked = "pretrain finetune evaluate predict simulate inspect plan convert convert-data benchmark"
    assert {*asked.split(), "reproduce", "show-tokens", "configs"} <= set(scripts())


@pytest.mark.skipif(shutil.which("bash") is None, reason="completion is bash's")
def test_bash_completes_commands_and_their_flags():
    words = (
        'matey() { PY -m matey "$@"; }; eval "$(matey --completion)"; COMP_WORDS=(matey LINE); COMP_CWORD=$N; _matey; '
    )
    found = {}
    for line, number in (("pre", 1), ("predict --pro", 2)):
        asked = words.replace("PY", sys.executable).replace("LINE", line).replace("$N", str(number))
        result = subprocess.run(
            ["bash", "-c", asked + 'echo "${COMPREPLY[@]}"'], cwd=ROOT, capture_output=True, text=True
        )
        found[line] = result.stdout.split()
    assert {*found["pre"]} == {"pretrain", "predict"} and found["predict --pro"] == ["--probe"]


def test_help_names_all_and_imports_nothing_that_takes_long():
    code, printed, imported = imports_of(ROOT / "matey" / "__main__.py", "--help")
    assert code == 0 and imported.isdisjoint({"torch", "deepspeed", "transformers", "numpy"})
    assert all(f"\n  {name} " in printed for name in scripts())


def test_a_subcommand_has_its_own_flags_name_and_exit_code(tmp_path):
    asked = matey("simulate", "--help", cwd=tmp_path)
    assert asked.returncode == 0 and asked.stdout.startswith("usage: matey simulate ")
    wrong = matey("evaluate", "--checkpoint", "nowhere", "--out", "x", cwd=tmp_path)
    assert wrong.returncode == 2 and "There is no folder nowhere" in wrong.stderr
    unknown = matey("pretrian", cwd=tmp_path)
    assert unknown.returncode == 2 and "Did you mean 'pretrain'?" in unknown.stderr
    assert matey(cwd=tmp_path).returncode == 2


def test_configurations_are_listed_and_printed(tmp_path):
    listed = matey("configs", cwd=tmp_path).stdout
    assert all(f"\n  {name} " in listed for folder in ("launch/runs", "ds_configs") for name in configurations(folder))
    assert matey("configs", "zero1", cwd=tmp_path).stdout == (ROOT / "ds_configs/zero1.json").read_text()


def test_names_stand_for_what_comes_with_the_program_unless_a_file_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_deepspeed_config("zero1") == load_deepspeed_config(ROOT / "ds_configs/zero1.json")
    assert load_config("demo") == load_config("launch/runs/demo.yaml") == load_config(ROOT / "launch/runs/demo.yaml")
    shutil.copy(ROOT / "ds_configs/zero2.json", "zero1")
    assert load_deepspeed_config("zero1")["zero_optimization"]["stage"] == 2
    with pytest.raises(ConfigError, match="Cannot read the configuration deom: No such file.* Did you mean 'demo'"):
        load_config("deom")


@pytest.mark.parametrize("before", [[], ["--local_rank=0"]], ids=["torchrun", "deepspeed"])
def test_ranks_train_by_the_command_whichever_launcher_starts_them(before, run_yaml, tmp_path):
    words = ["pretrain", "--deepspeed_config", "zero1", "--config", run_yaml(train={"steps": 2}), "--describe"]
    result = start_ranks(2, ROOT / "matey" / "__main__.py", *before, *words)
    assert result.returncode == 0 and "2 ranks" in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
def test_a_wheel_in_a_new_environment_simulates_trains_and_forecasts(tmp_path):
    source, empty = tmp_path / "source", tmp_path / "empty"
    source.mkdir()
    empty.mkdir()
    subprocess.run(f"git ls-files -z | xargs -0 cp --parents -t {source}", shell=True, cwd=ROOT, check=True)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([sys.executable, "-m", *build], check=True)
    (wheel,) = tmp_path.glob("matey_pde-*.whl")
    assert wheel.stat().st_size < 4_500_000  # of which the model takes 3.3
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    install = ["pip", "--python", tmp_path / "env/bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run([sys.executable, "-m", *install], check=True)
    # What MATEY needs is taken from this environment; a line of a .pth file is a path, and its own .pth files do not count.
    needed = next(path for path in map(str, sys.path) if path.endswith("site-packages"))
    (packages / "needed.pth").write_text(f"{needed}\n")
    environment = {**clean_environment(), "PATH": f"{tmp_path}/env/bin:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    environment.pop("PYTHONPATH", None)

    def run(*words):
        result = subprocess.run([*map(str, words)], cwd=empty, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return result.stdout

    where = run("python", "-c", "import matey; print(matey.__file__)")
    assert where.startswith(str(tmp_path / "env"))
    run("matey", "simulate", "shallow_water", "--out", "d", "--trajectories", 12, "--resolution", 32, "--frames", 12)
    sets = ["--set", "data.sets=[{path: d}]", "--set", "train.steps=4", "--set", "train.validate_every=4"]
    sets += ["--set", "train.checkpoint_every=4", "--set", "train.validation_windows=4"]
    deepspeed = "python -m deepspeed.launcher.runner --num_gpus 2 --module matey".split()
    torchrun = "python -m torch.distributed.run --nproc_per_node 2 -m matey".split()
    for number, launcher in enumerate((["matey"], torchrun, deepspeed)):
        settings = [*sets, "--set", f"output.dir=run{number}"]
        run(*launcher, "pretrain", "--deepspeed_config", "zero1", "--config", "demo", *settings)
    run("matey", "evaluate", "--checkpoint", "run2", "--out", "run2", "--max-windows", 4)
    run("matey", "predict", "--checkpoint", "matey-micro", "--data", "d", "--out", "d.h5", "--steps", 3)
    assert (empty / "run2" / "report.html").is_file() and (empty / "d.h5").is_file()
