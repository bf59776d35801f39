"""Trains and scores the points of a comparison: peers in this process, MATEY as a user would, by launch/pretrain.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from matey.checkpoints.trained import read_log
from matey.config import RunConfig, load_config
from matey.config.shipped import ROOT
from matey.data import DataError
from matey.evaluate.held_out import hold_out
from matey.evaluate.records import write_records
from matey.parallel.allocator import keep_freed_memory
from matey.studies.folder import StudyError, call
from matey.studies.peers.fno import FourierOperator
from matey.studies.peers.inputs import NetworkPeer
from matey.studies.peers.points import MATEY, Point, Result
from matey.studies.peers.scoring import flags_of, protocol_of, score
from matey.studies.peers.stencil import StencilPeer, fit_stencil
from matey.studies.peers.training import Settings, train_network
from matey.studies.peers.unet import UNet
from matey.train.run_data import loss_scales, open_data

NETWORKS: dict[str, tuple[Callable[[int, int], torch.nn.Module], Settings]] = {
    "U-Net": (UNet, Settings(batch=4, learning_rate=2e-3)),
    "FNO": (FourierOperator, Settings(batch=4, learning_rate=3e-3)),
}
TIMED_STEPS, FIRST_TIMED = 60, 10
SHARE_OF_WARMUP = 30  # a run's warm-up is at most this part of its steps


@dataclass(frozen=True)
class Comparison:
    """What is compared, and where.

    Attributes:
        root: folder that scripts are started in.
        out: folder of the study.
        config: run YAML with MATEY's settings.
        settings: overrides of the YAML.
        paths: path of the data of each system.
        device: the device to train on, ``cpu`` or ``cuda``.
        max_windows: largest number of windows to score each model on, per system and lead.
    """

    root: Path
    out: Path
    config: Path
    settings: tuple[str, ...]
    paths: Mapping[str, str]
    device: str
    max_windows: int = 200

    def folder(self, point: Point) -> Path:
        """Return where the results of a point are."""
        return self.out / "points" / point.name

    def is_done(self, point: Point) -> bool:
        """Return whether a point has been trained and scored."""
        return (self.folder(point) / "result.json").exists()

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides with which a point's model is trained, MATEY or not."""
        sets = ", ".join(f"{{path: {self.paths[system]}}}" for system in point.systems)
        return [*self.settings, f"data.sets=[{sets}]", f"train.seed={point.seed}"]

    def run_config(self, point: Point) -> RunConfig:
        """Return the configuration of a point's run."""
        return load_config(self.config, self.overrides(point))


def run_point(comparison: Comparison, point: Point) -> None:
    """Train and score one point, and write ``metrics.json`` and ``result.json`` to its folder.

    Raises:
        StudyError: a command failed, or the data does not suit the peers.
    """
    comparison.folder(point).mkdir(parents=True, exist_ok=True)
    result = _run_matey(comparison, point) if point.model == MATEY else _run_peer(comparison, point)
    text = json.dumps(asdict(result)) + "\n"
    (comparison.folder(point) / "result.json").write_text(text, encoding="utf-8")


def _run_peer(comparison: Comparison, point: Point) -> Result:
    run = comparison.run_config(point)
    keep_freed_memory()  # as MATEY's training does
    try:
        data = open_data(run)
        peer: StencilPeer | NetworkPeer
        if point.model == "stencil":
            peer = StencilPeer()
            training = fit_stencil(peer, data.mixture, run.data.bad_values, point.budget)
        else:
            torch.manual_seed(point.seed)
            network, settings = NETWORKS[point.model]
            peer = NetworkPeer(network(run.data.history, len(data.fields)).to(comparison.device))
            training = train_network(peer, run, data, loss_scales(run, data), settings, point.budget)
        held_out = hold_out(data.sets, "test", run.data.history, run.data)
        records = score(peer, held_out, protocol_of(run.data.lead_max, comparison.max_windows))
    except DataError as error:
        raise StudyError(str(error)) from None
    write_records(records, comparison.folder(point) / "metrics.json")
    return Result(training.seconds, training.steps, peer.num_parameters)


def _run_matey(comparison: Comparison, point: Point) -> Result:
    folder = comparison.folder(point)
    run = comparison.run_config(point)
    steps = max(1, int(point.budget / _seconds_per_step(comparison, point)))
    _pretrain(comparison, point, point.name, folder / "run", steps)
    command = [
        sys.executable,
        str(ROOT / "launch/evaluate.py"),
        "--checkpoint",
        str(folder / "run"),
        "--out",
        str(folder),
    ]
    protocol = protocol_of(run.data.lead_max, comparison.max_windows)
    command += [*flags_of(protocol), "--device", comparison.device, "--threads", "1"]
    call(comparison.out, point.name, command, comparison.root, _environment(comparison))
    lines = _steps_of(folder / "run")
    seconds = sum(_cost(line, comparison.device) for line in lines)
    return Result(seconds, len(lines), _num_parameters(folder / "run" / "model"))


def _seconds_per_step(comparison: Comparison, point: Point) -> float:
    """Time a short run like the point's, unless that was done for another seed."""
    folder = comparison.out / "timing" / point.data
    if len(_steps_of(folder)) < TIMED_STEPS:
        _pretrain(comparison, point, f"timing-{point.data}", folder, TIMED_STEPS)
    lines = _steps_of(folder)[FIRST_TIMED:]
    return sum(_cost(line, comparison.device) for line in lines) / len(lines)


def _pretrain(comparison: Comparison, point: Point, name: str, folder: Path, steps: int) -> None:
    settings = [*comparison.overrides(point), f"train.steps={steps}", f"output.dir={folder}"]
    warmup = min(comparison.run_config(point).train.warmup_steps, steps // SHARE_OF_WARMUP)
    settings += [f"train.{key}={steps}" for key in ("validate_every", "checkpoint_every")]
    settings += [f"train.warmup_steps={warmup}", "train.log_every=1", "parallel.threads=1"]
    command = [
        sys.executable,
        str(ROOT / "launch/pretrain.py"),
        "--deepspeed_config",
        "ds_configs/zero1.json",
        "--resume",
    ]
    command += ["--config", str(comparison.config), *(part for setting in settings for part in ("--set", setting))]
    call(comparison.out, name, command, comparison.root, _environment(comparison))


def _environment(comparison: Comparison) -> dict[str, str]:
    """Return the variables of a command: one thread, as the peers have, and on the CPU no sight of a GPU."""
    threads = {"OMP_NUM_THREADS": "1"}
    return threads | ({} if comparison.device == "cuda" else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"})


def _steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / "metrics.jsonl") if "loss" in line]


def _cost(line: Mapping[str, Any], device: str) -> float:
    """Return what a step took: CPU seconds, or on a GPU seconds."""
    return line["seconds"] if device == "cuda" else line["processor_seconds"]


def _num_parameters(model: Path) -> int:
    with safe_open(model / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]
    return sum(torch.Size(shape).numel() for shape in shapes)
