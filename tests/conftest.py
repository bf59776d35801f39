"""What all tests share: the real files beside the checkout, small fields, and runs in processes of their own."""

from __future__ import annotations

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # ranks of a test may outnumber the GPUs; it is read on first import

import functools
import gc
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch
import yaml

from matey import FieldBatch, MateyConfig, MateyModel
from matey.config.schema import TokensSection
from tests.support.preloaded import LAUNCHERS, Server

pytest_plugins = ["tests.support.evaluations", "tests.support.processes"]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
VOCABULARY = ("water_height", "activator", "inhibitor")

torch.set_num_threads(1)

PROVED: list[str] = []  # lines that tests of whole grids of cases leave for the end of the run


def pytest_collection_finish():
    gc.freeze()  # a million objects of the imports, through which Python would look for garbage again and again


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes, under pytest-xdist
        session.config.workeroutput["proved"] = PROVED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    PROVED.extend(getattr(node, "workeroutput", {}).get("proved", []))


def pytest_terminal_summary(terminalreporter):
    for line in PROVED:
        terminalreporter.write_line(f"proved: {line}")


def make_batch(
    system="shallow_water",
    fields=("water_height",),
    num_samples=2,
    frames=2,
    grid=(1, 32, 32),
    seed=0,
    dtype=torch.float32,
) -> FieldBatch:
    """A batch with one sharp bump per sample on a smooth, slightly noisy background."""
    random = torch.Generator().manual_seed(seed)
    z, y, x = grid
    yy, xx = torch.meshgrid(torch.linspace(0, 1, y), torch.linspace(0, 1, x), indexing="ij")
    centre = torch.rand(num_samples, 1, 1, 1, 1, 1, 2, generator=random)
    bump = torch.exp(-80 * ((yy - centre[..., 0]) ** 2 + (xx - centre[..., 1]) ** 2))
    noise = 0.01 * torch.randn(num_samples, frames + 1, len(fields), z, y, x, generator=random)
    drift = 1 + 0.1 * torch.arange(frames + 1)[None, :, None, None, None, None]
    values = (3 + bump * drift + noise).to(dtype)
    lead_time = torch.randint(1, 5, (num_samples,), generator=random)
    return FieldBatch(system, tuple(fields), values[:, :-1], lead_time, values[:, -1])


def make_model(patches=((1, 1, 16, 16), (1, 1, 4, 4)), dtype=torch.float64, trained=True, **kwargs) -> MateyModel:
    """A small model; `trained` fills the zero-initialised last layers, so that its output is not persistence.

    `kwargs` are settings of `MateyConfig` and of its tokens.
    """
    torch.manual_seed(0)
    tokens = {"set": "mix" if len(patches) > 1 else "uniform", "patches": patches, "refine": 0.3}
    tokens |= {key: kwargs.pop(key) for key in TokensSection.model_fields.keys() & kwargs.keys()}
    settings = {"history": 2, "num_heads": 3, "width": 24, "num_blocks": 2, "local": 3, "local_scales": (1, 4)}
    settings |= {"statistics": True, "predict": "rate"}
    config = MateyConfig(**{"fields": VOCABULARY, "tokens": tokens, **settings, **kwargs})
    model = MateyModel(config).to(dtype)
    if trained:
        for decoder in model.decoders:
            torch.nn.init.normal_(decoder.field_weight, std=0.5)
        for scheme in model.local.schemes if model.local is not None else ():
            torch.nn.init.normal_(scheme.field_stencils, std=0.1)
            torch.nn.init.normal_(scheme.field_linear, std=0.1)
            torch.nn.init.normal_(scheme.field_out, std=0.5)
    return model.eval()


def write_swe(path: Path, num_trajectories: int, num_frames: int = 12, resolution: int = 16, seed: int = 0) -> Path:
    """A file in PDEBench's shallow-water layout whose bumps drift."""
    random = np.random.default_rng(seed)
    axis = np.linspace(-2.5, 2.5, resolution + 1)[:-1] + 2.5 / resolution
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number in range(num_trajectories):
            x0, y0 = random.uniform(-1, 1, 2)
            time = np.arange(num_frames)[:, None, None] * 0.01
            height = 1 + np.exp(-((axis[:, None] - x0 - 20 * time) ** 2) - 2 * (axis[None, :] - y0) ** 2)
            group = file.create_group(f"{number:04d}")
            group["data"] = height[..., None].astype("f4")
            group["grid/x"], group["grid/y"] = axis.astype("f4"), axis.astype("f4")
            group["grid/t"] = (np.arange(num_frames) * 0.01).astype("f4")
            group.attrs["config"] = f"sim:\n  dam_radius: 0.5\n  gravity: 1.0\n  seed: {number}\n"
    return path


@pytest.fixture
def run_yaml(tmp_path):
    """Write a small run and return a function that writes it with other values."""
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 10)

    def write(**sections) -> Path:
        tree = {
            "model": {"size": "micro"},
            "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]},
            "data": {"sets": [{"path": str(tmp_path / "swe")}], "history": 2, "lead_max": 2},
            "train": {
                "steps": 4,
                "micro_batch": 4,
                "validate_every": 2,
                "checkpoint_every": 2,
                "validation_windows": 4,
            },
            "output": {"dir": str(tmp_path / "run")},
        }
        for section, values in sections.items():
            tree[section] = {**tree.get(section, {}), **values}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def clean_environment() -> dict[str, str]:
    """The variables of a process of its own: this environment's commands, one thread, and nothing of an outer launcher."""
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return environment


@contextmanager
def in_background(command, env=None, **kwargs) -> Iterator[subprocess.Popen]:
    """Run a command from the repository's root while the block lasts; none of its processes outlives the block."""
    command, env = [*map(str, command)], env or clean_environment()
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, start_new_session=True, **kwargs) as process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kill a process, its group and its descendants, as launchers give their ranks groups of their own."""
    descendants = []
    with suppress(psutil.NoSuchProcess):
        descendants = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in descendants:
        with suppress(psutil.NoSuchProcess):
            each.kill()


TWO_RANKS = ("two ranks",)  # in place of a launcher, where it does not matter which: see `start_ranks`


@functools.cache
def preloaded() -> Server:
    """The process that programs of this Python are forked from, with all slow imports done."""
    return Server(ROOT, clean_environment())


@pytest.fixture
def forked(monkeypatch):
    """The processes that the package starts in a test are forked from `preloaded` as well."""
    monkeypatch.setenv("OMP_NUM_THREADS", clean_environment()["OMP_NUM_THREADS"])
    monkeypatch.setattr(sys, "executable", preloaded().python)


def start(command, timeout=240, limit_file_bytes=None, env=None, anew=False) -> subprocess.CompletedProcess:
    """Run a command of this environment from the repository's root and return what it printed.

    Args:
        command: the command; a launcher's ranks, too, are forked from `preloaded` where they can be.
        timeout: seconds that it may take.
        limit_file_bytes: size that no file that it writes may have.
        env: its variables, by default `clean_environment`.
        anew: whether all interpreters of it are new ones.
    """
    if command[0] == TWO_RANKS[0]:
        return start_ranks(2, *command[1:], timeout=timeout)
    command, env = [*map(str, command)], env or clean_environment()
    if limit_file_bytes is None and not anew:
        first, *more = command
        more = [preloaded().python if word == sys.executable else word for word in more]
        launcher = [sys.executable] if Path(first).name in LAUNCHERS else []
        command = [*launcher, first, *more]
        if preloaded().can_run(command, env):
            return run_together([(command, env)], timeout)
    prefix = ["bash", "-c", f'ulimit -f {limit_file_bytes // 1024}; exec "$@"', "-"] if limit_file_bytes else []
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with in_background([*prefix, *command], env, **streams) as process:
        printed = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, *printed)


def start_ranks(num_ranks, *command, timeout=240) -> subprocess.CompletedProcess:
    """Run a program of this Python on so many ranks, as torchrun does; the first failure ends them all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
        | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for rank in range(num_ranks)
    ]
    command = [sys.executable, *map(str, command)]
    return run_together([(command, clean_environment() | variables) for variables in ranks], timeout)


def run_together(commands, timeout) -> subprocess.CompletedProcess:
    """Run commands of `preloaded` side by side until all have ended well or one has not; return all that they printed."""
    running = []
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            running += [preloaded().start(*command, stdout, stderr) for command in commands]
            pending, code, until = [*running], 0, time.monotonic() + timeout
            while pending and code == 0:
                ended, *_ = select.select(pending, [], [], max(0, until - time.monotonic()))
                if not ended:
                    raise subprocess.TimeoutExpired(commands[0][0], timeout)
                code = next((code for code in (program.wait() for program in ended) if code), 0)
                pending = [program for program in pending if program not in ended]
        finally:
            for program in running:
                kill(program)
        printed = []
        for stream in (stdout, stderr):
            stream.seek(0)
            printed.append(stream.read().decode())
    return subprocess.CompletedProcess(commands[0][0], code, *printed)


def pretrain(config, *more, launcher=(sys.executable,), deepspeed_config="ds_configs/zero1.json", **kwargs):
    """Run launch/pretrain.py."""
    arguments = ["launch/pretrain.py", "--deepspeed_config", deepspeed_config, "--config", config, *more]
    return start([*launcher, *arguments], **kwargs)
