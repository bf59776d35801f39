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
from matey.studies.data_efficiency.points import points_of as fine_tunings
from matey.studies.data_efficiency.running import DataEfficiencyStudy
from matey.studies.data_efficiency.scales import SCALES
from matey.studies.engine import RunnableStudy, draw, run_one, run_study, submit
from matey.studies.folder import StudyError
from matey.studies.overrides import check_overrides, stated_by
from matey.studies.page import write_page_of_all
from matey.studies.peers.points import points_of as comparisons
from matey.studies.peers.running import Comparison
from matey.studies.peers.scales import SCALES as PEER_SCALES
from matey.studies.pretraining.running import PretrainingStudy
from matey.studies.pretraining.table import Point as Pretraining
from matey.studies.pretraining.tables import STUDIES
from matey.studies.pretraining.timing import time_in_turn


def main(args: argparse.Namespace) -> int:
    """Run the study; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    interrupt_at_signals()
    with writing(args.out):
        if args.study == "report":
            print(f"Page: {write_page_of_all(args.out.absolute())}")
            return 0
        studies: dict[str, Callable[[argparse.Namespace], RunnableStudy[Any]]] = {
            "data_efficiency": data_efficiency,
            "peers": peers,
        }
        study = studies.get(args.study, pretraining)(args)
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
        elif args.draw:
            print(draw(study))
            print_places(study)
        elif isinstance(study, PretrainingStudy) and args.time:
            if args.models or args.seeds:
                raise StudyError(
                    "--time compares models: it times all finished trainings; leave out --models and --seeds."
                )
            print(time_in_turn(study))
            print_places(study)
        else:
            run(study, command, args)
    return 0


def absolute(args: argparse.Namespace) -> list[str]:
    """Return the flags with paths again, as absolute paths: trainings in processes of their own start in another folder."""
    paths = {name: getattr(args, name) for name in ("out", "deepspeed_config", "config") if hasattr(args, name)}
    return [part for name, path in paths.items() for part in (f"--{name}", str(find_shipped(path).absolute()))]


def run(study: RunnableStudy[Any], command: list[str], args: argparse.Namespace) -> None:
    """Run or submit a study; its expected cost is printed first if it is high or the user names a machine."""
    if args.scale == "paper" or vars(args).get("machine"):
        print(study.plan(), flush=True)
    if args.submit:
        submit(study, command, args.sbatch, print)
    else:
        print(run_study(study, command, args.jobs))
        print_places(study)


def print_places(study: RunnableStudy[Any]) -> None:
    """Print where a study's table and plot are."""
    print(f"\nTable: {study.out / 'results.csv'}   plot: {study.out / 'results.png'}")


def peers(args: argparse.Namespace) -> Comparison:
    """Return the comparison of models of the same cost."""
    out, config = folder_of(args, "peers"), find_shipped(args.config).absolute()
    simulated = () if args.paths else PEER_SCALES[args.scale].data
    paths = args.paths or {data.system: str(out / "data" / data.name) for data in simulated}
    points = comparisons(tuple(paths), args.seconds, args.seeds)
    comparison = Comparison(WORK, out, config, tuple(args.set), paths, args.device, points, args.max_windows, simulated)
    comparison.run_config(points[0])  # raises if the run does not suit the peers
    if is_to_train(args):
        fno_class()  # raises if its package is missing
        is_here = args.point is not None or not args.submit  # a job of Slurm has both
        if is_here and args.device == "cuda" and not torch.cuda.is_available():
            raise StudyError(
                "--device cuda (as the scale paper has): PyTorch finds no GPU here; train on one, or --device cpu."
            )
    return comparison


def data_efficiency(args: argparse.Namespace) -> DataEfficiencyStudy:
    """Return the study of fine-tuning on increasing numbers of trajectories."""
    scale = SCALES[args.scale]
    check_ranks(args, scale.ranks)
    return DataEfficiencyStudy(
        WORK,
        folder_of(args, f"data_efficiency-{args.system}"),
        args.system,
        args.scale,
        fine_tunings(args.starts, args.modes, args.sizes, args.seeds or scale.seeds),
        args.pretrained,
        args.launcher or shlex.quote(sys.executable),
        str(find_shipped(args.deepspeed_config).absolute()),
        tuple(args.set),
        machine_of(args),
        args.ranks or scale.ranks,
    )


def pretraining(args: argparse.Namespace) -> PretrainingStudy:
    """Return a study that pretrains many models."""
    question = STUDIES[args.study]()
    table = question.tables[args.scale]
    if not table.launcher:
        check_ranks(args, table.ranks)
    elif args.launcher is None and args.ranks not in (None, table.ranks):
        raise StudyError(
            f"--ranks {args.ranks}: {args.study} at the scale {args.scale} trains on {table.ranks} ranks, which share a sample."
        )
    study = PretrainingStudy(
        WORK,
        folder_of(args, args.study),
        table,
        points_named(args.models, table.points(args.seeds)),
        (args.study, args.scale),
        question.costs,
        args.launcher or table.launcher or shlex.quote(sys.executable),
        str(find_shipped(args.deepspeed_config).absolute()),
        tuple(args.set),
        machine_of(args),
        args.ranks or table.ranks,
    )
    check_overrides(args.set, stated_by(point.case for point in study.points))
    for point in study.points:
        study.run_config(point)
    return study


def points_named(models: str | None, points: list[Pretraining]) -> list[Pretraining]:
    """Return the points of the named models, or all; raise StudyError if there is no such model."""
    names = list(dict.fromkeys(point.case.name for point in points))
    chosen = models.split(",") if models else names
    for name in chosen:
        if name not in names:
            raise StudyError(f"--models: the study has no model {name!r}; it has {', '.join(names)}.")
    return [point for point in points if point.case.name in chosen]


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


def machine_of(args: argparse.Namespace) -> str:
    """Return the machine that a study is planned for; for the paper's settings, the paper's machine."""
    machine: str = args.machine or ("frontier" if args.scale == "paper" else "cpu")
    return machine
