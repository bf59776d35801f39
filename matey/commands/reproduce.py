"""Runs a study from start to plot, for tools/reproduce.py."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from matey.commands import ROOT, WORK
from matey.commands.pretraining_study import pretraining, report
from matey.config import load_config, load_resolved
from matey.config.shipped import find
from matey.mistakes import writing
from matey.studies.data_efficiency import (
    Point,
    check_data,
    points_of,
    scores,
    study_figure,
    trajectories_for,
)
from matey.studies.folder import Row, call, claim, write_table
from matey.studies.peers.fno import fno_class
from matey.studies.peers.points import points_of as peer_points
from matey.studies.peers.points import rows_of
from matey.studies.peers.running import Comparison
from matey.studies.peers.running import run_point as run_peer
from matey.studies.peers.table import peers_figure, peers_table
from matey.studies.scales import MIN_SIMULATED, SCALES, SYSTEMS

IN_THE_BOX = ROOT / "models" / "matey-micro"


def main(args: argparse.Namespace) -> int:
    """Run the study; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    commands = {"data_efficiency": data_efficiency, "peers": peers, "report": report}
    with writing(args.out):
        commands.get(args.study, pretraining)(args)
    return 0


def peers(args: argparse.Namespace) -> None:
    """Train and score the points that are not done yet; write table and plot after each."""
    paths = args.paths
    points = peer_points(tuple(paths), args.seconds, args.seeds)
    out = args.out.absolute()
    config = find(args.config).absolute()
    comparison = Comparison(WORK, out, config, tuple(args.set), paths, args.device, args.max_windows)
    fno_class()
    settings = {key: getattr(args, key) for key in ("config", "set", "device", "max_windows")}
    claim(out, {"study": "peers", "data": paths, **settings})
    torch.set_num_threads(1)
    rows = []
    for point in tqdm(points, desc="peers", unit="run", disable=None):
        if not comparison.is_done(point):
            run_peer(comparison, point)
        rows += rows_of(point, comparison.folder(point))
        write_table(out / "peers.csv", rows)
        unit = "GPU seconds" if args.device == "cuda" else "CPU seconds"
        peers_figure(rows, unit).savefig(out / "peers.png", dpi=150)
    print(peers_table(rows))
    print(f"Table: {out / 'peers.csv'}   plot: {out / 'peers.png'}")


def data_efficiency(args: argparse.Namespace) -> None:
    """Run the points that are not done yet; write table and plot after each."""
    scale = SCALES[args.scale]
    points = points_of(args.starts, args.modes, args.sizes, args.seeds or scale.seeds)
    out = args.out.absolute()
    config = load_config(ROOT / scale.config.format(system=args.system), args.set)
    if args.scale == "tiny":
        trajectories = max(MIN_SIMULATED, trajectories_for(args.sizes[-1], config.data))
    else:
        trajectories = check_data(config.data, WORK, args.sizes[-1])
    study = {"system": args.system, "scale": args.scale, "pretrained": args.pretrained}
    claim(out, {**study, "trajectories": trajectories, "set": args.set})
    if args.scale == "tiny":
        simulate(out, SYSTEMS[args.system], trajectories, frames=51)
    pretrained = str(Path(args.pretrained or IN_THE_BOX).absolute())
    rows = []
    for point in tqdm(points, desc="data_efficiency", unit="run", disable=None):
        if not (out / "points" / point.name / "report.html").exists():
            run_point(point, args, pretrained, out)
        rows += scores(point, out / "points" / point.name / "metrics.json")
        write(out, rows, args.system)
    print(f"Table: {out / 'data_efficiency.csv'}   plot: {out / 'data_efficiency.png'}")


def run_point(point: Point, args: argparse.Namespace, pretrained: str, out: Path) -> None:
    """Fine-tune and evaluate one point; an interrupted one goes on from its newest checkpoint."""
    folder = out / "points" / point.name
    call(out, point.name, finetuning(point, args, pretrained, out), WORK)
    lead_max = load_resolved(folder / "config.yaml").data.lead_max
    command = [sys.executable, str(ROOT / "launch/evaluate.py"), "--checkpoint", str(folder), "--out", str(folder)]
    command += ["--leads", f"1,{lead_max}", "--rollout", "0", "--max-windows", str(SCALES[args.scale].max_windows)]
    call(out, point.name, command, WORK)


def finetuning(point: Point, args: argparse.Namespace, pretrained: str, out: Path) -> list[str]:
    """Return the command that fine-tunes one point."""
    scale = SCALES[args.scale]
    config = ROOT / scale.config.format(system=args.system)
    settings = [
        f"output.dir={out / 'points' / point.name}",
        f"train.seed={point.seed}",
        *scale.settings,
        *(dict(scale.system_settings).get(args.system, ()) if pretrained == str(IN_THE_BOX) else ()),
        *dict(scale.mode_settings).get(point.mode, ()),
        *args.set,
    ]
    if args.scale == "tiny":
        settings.append(f"data.sets=[{{path: {out / 'data' / SYSTEMS[args.system]}}}]")
    if point.start == "random" and (stated := stated_config(point, out)) is not None:
        config, settings = stated, [setting for setting in settings if not setting.startswith("model.")]
    command = [
        *shlex.split(args.launcher),
        str(ROOT / "launch/finetune.py"),
        "--deepspeed_config",
        args.deepspeed_config,
    ]
    command += ["--config", str(config), "--pretrained", "none" if point.start == "random" else pretrained]
    command += ["--train", point.mode, "--trajectories", str(point.trajectories), "--resume"]
    return [*command, *(part for setting in settings for part in ("--set", setting))]


def stated_config(point: Point, out: Path) -> Path | None:
    """Return the configuration of the run from the pretrained model that is otherwise the same, or of one of the same mode.

    It states network and vocabulary in full, and has the rates of its mode.
    """
    twin = replace(point, start="pretrained")
    patterns = (twin.name, f"pretrained-{point.mode}-{point.trajectories}-*", f"pretrained-{point.mode}-*")
    found = (path for name in patterns for path in sorted((out / "points").glob(f"{name}/config.yaml")))
    return next(found, None)


def simulate(out: Path, system: str, trajectories: int, frames: int) -> None:
    """Simulate a small set, unless it is there."""
    command = [
        sys.executable,
        str(ROOT / "tools/simulate.py"),
        system,
        "--out",
        str(out / "data" / system),
        "--resolution",
        "64",
    ]
    call(out, f"simulate-{system}", [*command, "--trajectories", str(trajectories), "--frames", str(frames)], WORK)


def write(out: Path, rows: Sequence[Row], system: str) -> None:
    """Write table and plot."""
    write_table(out / "data_efficiency.csv", rows)
    study_figure(rows, system).savefig(out / "data_efficiency.png", dpi=150)
