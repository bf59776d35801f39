"""Small runs of training in processes of their own: how they are set, started and signalled, and what they leave."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import yaml

from tests.support.programs import Program, forked, in_background, start, with_forks
from tests.support.small_files import write_swe

NUM_STEPS = 20


def pretrain(config, *more, launcher=(sys.executable,), deepspeed_config="ds_configs/zero1.json", **kwargs):
    """Run launch/pretrain.py."""
    arguments = ["launch/pretrain.py", "--deepspeed_config", deepspeed_config, "--config", config, *more]
    return start([*launcher, *arguments], **kwargs)


def metrics(folder, key="loss"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def succeed(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def fail(result, *words):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if "error: " in line]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], result.stderr


def write_run(folder: Path, num_ranks: int, **data) -> Path:
    """Write the YAML of a longer run, on the data beside its folder, of as many samples a step on any number of ranks."""
    micro_batch = {"micro_batch": 4 // num_ranks, "accumulation": 4}
    seldom = {"validate_every": 1000, "checkpoint_every": 1000, "validation_windows": 2}
    folder.mkdir(exist_ok=True)
    return _write(folder, folder.parent, train={"steps": NUM_STEPS, **micro_batch, **seldom}, data=data)


def small_run(folder: Path) -> Callable[..., Path]:
    """Write the data of a small run and return a function that writes its YAML, with other values where they are given."""
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    return partial(_write, folder, folder)


def _write(folder: Path, site: Path, **sections) -> Path:
    often = {"validate_every": 2, "checkpoint_every": 2, "validation_windows": 4}
    tree = {
        "model": {"size": "micro"},
        "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]},
        "data": {"sets": [{"path": str(site / "swe")}], "history": 2, "lead_max": 2},
        "train": {"steps": 4, "micro_batch": 4, **often},
        "parallel": {"threads": 1},  # the cores are shared with other tests
        "output": {"dir": str(folder / "run")},
    }
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def losses(folder: Path) -> dict[int, float]:
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return {line["step"]: line["loss"] for line in found if "loss" in line}


class Run:
    """A run in the background, whose ranks can be signalled; what is forked from `preloaded` itself is the only rank."""

    def __init__(self, folder: Path, process: subprocess.Popen | Program):
        self.folder = folder
        self.process = process

    def ranks(self) -> list[psutil.Process]:
        """The processes that train: those whose first argument is the script."""
        outermost = psutil.Process(self.process.pid)
        if isinstance(self.process, Program):
            return [outermost]
        tree = [outermost, *outermost.children(recursive=True)]
        words = ((p, p.cmdline()) for p in tree if "python" in p.name())
        # Of a stand-in for Python the script is the fifth argument.
        return [p for p, command in words if "launch/pretrain.py" in (*command[1:3], *command[5:6])]

    def wait_for_steps(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while len(losses(self.folder)) < count:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def wait(self, processes=(), timeout=60) -> int:
        """Wait for the launcher and the processes given; return the launcher's exit code."""
        code = self.process.wait(timeout)
        alive = psutil.wait_procs(processes, timeout=timeout)[1]
        assert not alive, self.text()
        return code

    def text(self) -> str:
        return (self.folder / "output.txt").read_text()


@contextmanager
def running(folder: Path, launcher, config: Path, flags=()):
    """A run that is killed at the end of the block if it is still there; launchers of others start new interpreters."""
    files = ["--deepspeed_config", "ds_configs/zero1.json", "--config", config]
    command = [*map(str, [*launcher, "launch/pretrain.py", *files, *flags])]
    if launcher[0] == sys.executable:
        command = with_forks(command)
    with (folder / "output.txt").open("w") as output:
        streams = {"stdout": output, "stderr": subprocess.STDOUT}
        with forked(command, output) if len(launcher) == 1 else in_background(command, **streams) as process:
            yield Run(folder, process)
