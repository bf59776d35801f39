"""The command ``matey``: its subcommands are the scripts, and it finds what comes with the program."""

import os
import shutil
import subprocess
import sys

import pytest

from matey.commands.subcommands import scripts
from matey.config import ConfigError, load_config, load_deepspeed_config
from matey.config.files import configurations
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, imports_of, start_ranks


def matey(*words, cwd=ROOT):
    command = [sys.executable, "-m", "matey", *map(str, words)]
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_script_is_a_subcommand():
    stems = {path.stem for folder in ("launch", "tools") for path in (ROOT / folder).glob("*.py")}
    assert {path.stem for path in scripts().values()} == stems
    asked = "pretrain finetune evaluate predict simulate inspect plan convert convert-data benchmark"
    assert {*asked.split(), "reproduce", "show-tokens", "configs"} <= set(scripts())


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


def test_configurations_are_listed_shown_and_copied_but_over_nothing(tmp_path):
    listed = matey("configs", "list", cwd=tmp_path).stdout
    assert all(f"\n  {name} " in listed for folder in ("launch/runs", "ds_configs") for name in configurations(folder))
    assert matey("configs", "show", "zero1", cwd=tmp_path).stdout == (ROOT / "ds_configs/zero1.json").read_text()
    assert matey("configs", "copy", "demo", cwd=tmp_path).returncode == 0
    assert (tmp_path / "demo.yaml").read_text() == (ROOT / "launch/runs/demo.yaml").read_text()
    again = matey("configs", "copy", "demo", cwd=tmp_path)
    assert again.returncode == 2 and "Cannot write to demo.yaml (File exists)" in again.stderr


def test_names_stand_for_what_comes_with_the_program_unless_a_file_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_deepspeed_config("zero1") == load_deepspeed_config(ROOT / "ds_configs/zero1.json")
    assert load_config("demo") == load_config("launch/runs/demo.yaml") == load_config(ROOT / "launch/runs/demo.yaml")
    shutil.copy(ROOT / "ds_configs/zero2.json", "zero1")
    assert load_deepspeed_config("zero1")["zero_optimization"]["stage"] == 2
    with pytest.raises(ConfigError, match="Cannot read the configuration deom: No such file.* Did you mean 'demo'"):
        load_config("deom")
    with pytest.raises(ConfigError, match="launch/runs/demo.yml: No such file.* Did you mean 'demo'"):
        load_config("launch/runs/demo.yml")
    with pytest.raises(ConfigError, match="ds_configs/zer1.json: No such file.* Did you mean 'zero1'"):
        load_deepspeed_config("ds_configs/zer1.json")


@pytest.mark.parametrize("before", [[], ["--local_rank=0"]], ids=["torchrun", "deepspeed"])
def test_ranks_train_by_the_command_whichever_launcher_starts_them(before, run_yaml, tmp_path):
    words = ["pretrain", "--deepspeed_config", "zero1", "--config", run_yaml(train={"steps": 2}), "--describe"]
    result = start_ranks(2, ROOT / "matey" / "__main__.py", *before, *words)
    assert result.returncode == 0 and "2 ranks" in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
def test_a_wheel_in_a_new_environment_simulates_trains_and_forecasts(tmp_path):
    source, empty = tmp_path / "source", tmp_path / "empty"
    empty.mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([sys.executable, "-m", *build], check=True)
    (wheel,) = tmp_path.glob("matey_pde-*.whl")
    assert wheel.stat().st_size < 4_500_000  # of which the model takes 3.3
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    install = ["pip", "--python", tmp_path / "env/bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run([sys.executable, "-m", *install], check=True)
    # What MATEY needs is taken from this environment; a line of a .pth file is a path, and its own .pth files do not count.
    (packages / "needed.pth").write_text(
        f"{next(path for path in map(str, sys.path) if path.endswith('site-packages'))}\n"
    )
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
