"""Runs a study from start to plot, for tools/reproduce.py."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from matey.commands import ROOT, WORK
from matey.config.loading import find_shipped
from matey.mistakes import writing
from matey.peers.networks import fno_class
from matey.planning.machine import load_machine
from matey.process.signals import interrupt_at_signals
from matey.studies import data_efficiency, peers, pretraining, scaling
from matey.studies.engine import Study, on_this_machine, run_study, write_jobs

SCRIPTS = {"frontier": Path("launch/frontier/pretrain.sbatch")}  # other machines: launch/slurm/pretrain.sbatch


def main(args: argparse.Namespace) -> int:
    """Run the study; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    interrupt_at_signals()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    with writing(args.out):
        study = {"peers": comparison, "data_efficiency": fine_tunings, "scaling": sizes}.get(args.study, pretrainings)(
            args
        )
        if args.plan or (args.study != "scaling" and args.scale == "paper" and args.point is None):
            print(study.plan(), flush=True)
        if args.plan:
            return 0
        if args.slurm:
            print(f"Submit the trainings by: bash {shlex.quote(str(write_jobs(study, command(args))))} -A PROJECT")
            print("When they have ended, the same command without --slurm writes table and plot.")
            return 0
        print(run_study(study, args.point))
        print(f"\nTable: {study.out / 'results.csv'}   plot: {study.out / 'results.png'}")
    return 0


def command(args: argparse.Namespace) -> list[str]:
    """Return the command as it was called, without --slurm, and with paths that a job finds from another folder."""
    paths = {name: getattr(args, name) for name in ("out", "deepspeed_config") if hasattr(args, name)}
    words = [part for name, path in paths.items() for part in (f"--{name}", str(find_shipped(path).absolute()))]
    return [
        sys.executable,
        str(ROOT / "tools/reproduce.py"),
        *(word for word in sys.argv[1:] if word != "--slurm"),
        *words,
    ]


def comparison(args: argparse.Namespace) -> Study[Any]:
    """Return the comparison of models of the same cost."""
    if "FNO" in args.models and not args.plan:
        fno_class()  # raises if its package is missing
    out, simulated = folder_of(args), () if args.paths else args.size.data
    paths = args.paths or {data.system: str(out.parent / "data" / data.name) for data in simulated}
    points = peers.points_of(tuple(paths), args.seconds, args.seeds, args.models)
    about = {"paths": paths, "max_windows": args.size.max_windows, "simulated": simulated}
    study = peers.Comparison(out=out, work=WORK, points=points, settings=tuple(args.set), **about)
    study.run_config(points[0])  # raises if the run does not suit the peers
    return study


def fine_tunings(args: argparse.Namespace) -> Study[Any]:
    """Return the study of fine-tuning on increasing numbers of trajectories."""
    points = data_efficiency.points_of(args.starts, args.modes, args.sizes, args.seeds)
    about = {"system": args.system, "scale": args.scale, "pretrained": args.pretrained}
    return data_efficiency.DataEfficiencyStudy(out=folder_of(args), points=points, **about, **trained(args))


def pretrainings(args: argparse.Namespace) -> Study[Any]:
    """Return a study that pretrains many models."""
    points = pretraining.points_of(args.size, args.seeds, args.models)
    study = pretraining.PretrainingStudy(
        out=folder_of(args), points=points, name=args.study, scale=args.scale, **trained(args)
    )
    for point in study.points:
        study.run_config(point)
    return study


def sizes(args: argparse.Namespace) -> Study[Any]:
    """Return the study of how a run scales."""
    name = args.machine or ("frontier" if args.nodes else "cpu")
    points = scaling.points_of(args.nodes or args.ranks, load_machine(name).devices_per_node if args.nodes else None)
    study = scaling.ScalingStudy(
        out=args.out.absolute() / f"scaling-{args.mode}",
        work=WORK,
        points=points,
        settings=tuple(args.set),
        deepspeed_config=str(find_shipped(args.deepspeed_config).absolute()),
        machine=name,
        mode=args.mode,
        config=args.config,
        warm_up=args.warm_up,
        timed_steps=args.steps,
        global_batch=args.global_batch,
        site=(args.script or ROOT / SCRIPTS.get(name, Path("launch/slurm/pretrain.sbatch"))).absolute(),
    )
    for point in points:
        study.run_config(point)
    return study


def trained(args: argparse.Namespace) -> dict[str, Any]:
    """Return how trainings are started and planned; those with the paper's settings are planned for the paper's machine."""
    ranks = args.ranks or args.size.ranks
    return {
        "work": WORK,
        "settings": tuple(args.set),
        "launcher": args.launcher or on_this_machine(ranks),
        "deepspeed_config": str(find_shipped(args.deepspeed_config).absolute()),
        "machine": args.machine or ("frontier" if args.scale == "paper" else "cpu"),
        "ranks": ranks,
    }


def folder_of(args: argparse.Namespace) -> Path:
    """Return the folder of a study; each scale of a study has its own."""
    name = f"{args.study}-{args.system}" if args.study == "data_efficiency" else args.study
    return args.out.absolute() / f"{name}-{args.scale}"
