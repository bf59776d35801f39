"""Runs a study from start to plot, for tools/reproduce.py."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from matey.commands import ROOT, WORK
from matey.config.files import find_shipped
from matey.mistakes import writing
from matey.peers.fno import fno_class
from matey.process.signals import interrupt_at_signals
from matey.studies import data_efficiency, peers, pretraining
from matey.studies.cases import FINETUNE_SCALES, PEERS_SCALES, PRETRAININGS, StudyError, check_overrides, stated_by
from matey.studies.engine import RunnableStudy, draw, run_one, run_study, submit
from matey.studies.page import write_page_of_all


def main(args: argparse.Namespace) -> int:
    """Run the study; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    interrupt_at_signals()
    with writing(args.out):
        if args.study == "report":
            print(f"Page: {write_page_of_all(args.out.absolute())}")
            return 0
        studies: dict[str, Callable[[argparse.Namespace], RunnableStudy[Any]]] = {
            "data_efficiency": fine_tunings,
            "peers": comparison,
        }
        study = studies.get(args.study, pretrainings)(args)
        # The command as it was called, so that adding `--point` to it runs one point alone.
        command = [sys.executable, str(ROOT / "tools/reproduce.py"), *sys.argv[1:], *absolute(args)]
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(1)
        if args.list:
            print("\n".join(point.name for point in study.points))
        elif args.plan:
            print(study.plan())
        elif args.point is not None:
            run_one(study, args.point)
        else:
            run(study, command, args)
    return 0


def absolute(args: argparse.Namespace) -> list[str]:
    """Return the flags with paths again, as absolute paths: trainings in processes of their own start in another folder."""
    paths = {name: getattr(args, name) for name in ("out", "deepspeed_config") if hasattr(args, name)}
    return [part for name, path in paths.items() for part in (f"--{name}", str(find_shipped(path).absolute()))]


def run(study: RunnableStudy[Any], command: list[str], args: argparse.Namespace) -> None:
    """Run, submit or draw a study; its expected cost is printed first if it is high or the user names a machine."""
    if is_to_train(args) and (args.scale == "paper" or vars(args).get("machine")):
        print(study.plan(), flush=True)
    if args.submit:
        submit(study, command, args.sbatch, print)
        return
    print(draw(study) if args.draw else run_study(study, command, args.jobs))
    print(f"\nTable: {study.out / 'results.csv'}   plot: {study.out / 'results.png'}")


def comparison(args: argparse.Namespace) -> peers.Comparison:
    """Return the comparison of models of the same cost."""
    out, scale = folder_of(args, "peers"), PEERS_SCALES[args.scale]
    simulated = () if args.paths else scale.data
    paths = args.paths or {data.system: str(out / "data" / data.name) for data in simulated}
    points = peers.points_of(tuple(paths), args.seconds, args.seeds or scale.seeds, args.models)
    device = args.device or scale.device
    study = peers.Comparison(WORK, out, tuple(args.set), paths, device, points, scale.max_windows, simulated)
    study.run_config(points[0])  # raises if the run does not suit the peers
    if is_to_train(args):
        fno_class()  # raises if its package is missing
        is_here = args.point is not None or not args.submit  # a job of Slurm has both
        if is_here and device == "cuda" and not torch.cuda.is_available():
            raise StudyError(
                "--device cuda (as the scale paper has): PyTorch finds no GPU here; train on one, or --device cpu."
            )
    return study


def fine_tunings(args: argparse.Namespace) -> data_efficiency.DataEfficiencyStudy:
    """Return the study of fine-tuning on increasing numbers of trajectories."""
    scale = FINETUNE_SCALES[args.scale]
    check_ranks(args, scale.ranks)
    return data_efficiency.DataEfficiencyStudy(
        WORK,
        folder_of(args, f"data_efficiency-{args.system}"),
        args.system,
        args.scale,
        data_efficiency.points_of(args.starts, args.modes, args.sizes, args.seeds or scale.seeds),
        args.pretrained,
        **training_of(args, scale.ranks),
    )


def pretrainings(args: argparse.Namespace) -> pretraining.PretrainingStudy:
    """Return a study that pretrains many models."""
    table = PRETRAININGS[args.study].tables[args.scale]
    if not table.launcher:
        check_ranks(args, table.ranks)
    elif args.launcher is None and args.ranks not in (None, table.ranks):
        raise StudyError(
            f"--ranks {args.ranks}: {args.study} at the scale {args.scale} trains on {table.ranks} ranks, which share a sample."
        )
    points, out = pretraining.points_of(table, args.seeds, args.models), folder_of(args, args.study)
    check_overrides(args.set, stated_by(point.case for point in points))
    how = training_of(args, table.ranks, table.launcher)
    study = pretraining.PretrainingStudy(WORK, out, args.study, args.scale, points, **how)
    for point in study.points:
        study.run_config(point)
    return study


def training_of(args: argparse.Namespace, ranks: int, launcher: str = "") -> dict[str, Any]:
    """Return how trainings are started and planned; those with the paper's settings are planned for the paper's machine."""
    return {
        "launcher": args.launcher or launcher or shlex.quote(sys.executable),
        "deepspeed_config": str(find_shipped(args.deepspeed_config).absolute()),
        "settings": tuple(args.set),
        "machine": args.machine or ("frontier" if args.scale == "paper" else "cpu"),
        "ranks": args.ranks or ranks,
    }


def folder_of(args: argparse.Namespace, name: str) -> Path:
    """Return the folder of a study; each scale of a study has its own."""
    out: Path = args.out.absolute()
    return out / f"{name}-{args.scale}"


def check_ranks(args: argparse.Namespace, ranks: int) -> None:
    """Raise StudyError if a study meant for many ranks would train on one without the user's request."""
    if ranks > 1 and args.launcher is None and args.ranks != 1 and is_to_train(args):
        raise StudyError(
            f"{args.study} at the scale {args.scale} is meant for {ranks} ranks, but would be trained on one: give the command "
            "that starts them, as in --launcher 'srun python', or --ranks 1 if you mean one."
        )


def is_to_train(args: argparse.Namespace) -> bool:
    """Whether a call trains, here or in jobs of Slurm."""
    return not (args.list or args.plan or args.draw)
