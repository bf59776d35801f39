r"""Reproduce a study from start to plot.

    python tools/reproduce.py data_efficiency --scale tiny
    python tools/reproduce.py data_efficiency --system thermals --sizes 1,6,12,24,48,96 --modes prepost,all \
        --starts pretrained,random --seeds 3 --scale paper --pretrained runs/NAME --launcher "deepspeed --num_gpus 8" \
        --ranks 8 --set train.accumulation=8

`data_efficiency` fine-tunes on more and more trajectories, from a pretrained model and from random weights, trains a stencil,
a ResNet and a U-Net on the same at about the same cost, and scores each on the same test trajectories (the paper's figures 5
and 6). The scales `tiny` (minutes, to see that it works) and `laptop` (hours) simulate their data and start from
models/matey-micro where --pretrained names nothing else; `paper` has the paper's settings and expects its data in data/. Its
batch of 256 is 4 a rank, times the ranks that --launcher starts, times train.accumulation.

    python tools/reproduce.py peers --scale laptop --jobs 2 --out runs/paper

`peers` trains MATEY and other models on the same windows at the same cost: a stencil fitted by least squares, a ResNet, a U-Net
and an FNO (pip install 'matey-pde[baselines]') for each system, MATEY for each system and jointly on all, for so many CPU
seconds a system. It prints NRMSE over that of persistence with mean and deviation over the seeds. Several costs, as in
--seconds 30,110, make curves, and say what MATEY takes for the error of the best of the others. The scale `laptop` has the data
of `make demo`. launch/evaluate.py takes the folders of trained peers as it takes runs
(runs/paper/peers-laptop/points/unet-shallow_water-110-0).

    python tools/reproduce.py adaptivity --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py fine_grid --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py schemes --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py scaling_of_tokens --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py long_sequences --scale laptop --out runs/paper
    python tools/reproduce.py report --out runs/paper

These pretrain many models for equally many steps: uniform and adaptive tokens (the paper's figure 4), the same with a larger
network on a finer grid, the attention schemes at several sizes (figure 3), uniform and adaptive tokens on more and more
cells, and up to 65,536 tokens of a sample on four ranks. They print errors over persistence beside what each model costs,
measured. The scales `tiny` (minutes, to see that it works), `small` and `laptop` (hours) simulate their data; `paper` has the
paper's settings, and expects its data in data/.

All studies write results.csv, results.txt and results.png into a folder of their name and scale in --out, go on where they were
interrupted, run --jobs trainings at the same time, and hand each training to Slurm with --submit. --plan says what they will
cost, as the scale `paper` does before anything starts. `report` puts all studies of a folder on one page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matey.commands import ROOT, WORK
from matey.config import flags, load_config
from matey.config.choices import FINETUNE_MODES
from matey.process.entry_point import entry_point
from matey.studies.data_efficiency.scales import SCALES, STARTS, SYSTEMS
from matey.studies.folder import StudyError
from matey.studies.peers.paths import paths_by_system
from matey.studies.peers.scales import SCALES as PEER_SCALES
from matey.studies.pretraining.tables import STUDIES

PAPER = Path("runs/paper")
SIZES = ("seconds", "seeds", "max_windows")  # sizes of a comparison that a scale sets


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="STUDY", dest="study")
    study = what.add_parser("data_efficiency", help="error against the number of training trajectories")
    study.add_argument("--system", choices=SYSTEMS, default="thermals", help="system to learn (thermals)")
    study.add_argument("--scale", choices=SCALES, default="tiny", help="settings and size (tiny)")
    sizes = "tiny: 1,6; others: 1,6,12,24,48,96 of thermals, 1,6,12,24 of mhd"
    study.add_argument("--sizes", metavar="N,N", help=f"training trajectories ({sizes})")
    study.add_argument(
        "--modes",
        help=f"parts that are trained: {', '.join(FINETUNE_MODES.own)} (tiny: all; paper: prepost,all; laptop: and lora)",
    )
    starts = ",".join(STARTS)
    study.add_argument(
        "--starts", default=starts, help="initial weights, and peers on the same trajectories (%(default)s)"
    )
    study.add_argument("--seeds", type=int, metavar="N", help="runs of each point (tiny: 1, others: 3)")
    study.add_argument("--pretrained", metavar="RUN_OR_MODEL", help="run or model to start from")
    study.add_argument("--deepspeed_config", default="ds_configs/zero1.json", help="JSON of DeepSpeed (%(default)s)")
    study.add_argument("--launcher", help="command before launch/finetune.py (this Python; paper: to be given)")
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every fine-tuning"
    )
    study.set_defaults(check=check_data_efficiency)
    add_planning(study)
    add_running(study)
    add_peers(what)
    for name in STUDIES:
        add_pretraining(what, name)
    page = what.add_parser("report", help="one page of all studies in a folder")
    page.add_argument("--out", type=Path, default=PAPER, metavar="DIR", help="folder of the studies (%(default)s)")
    page.set_defaults(check=lambda _: None)
    args = top.parse_args()
    args.check(args)
    from matey.commands.reproduce import main as reproduce

    return reproduce(args)


def add_peers(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the flags of the comparison with other models."""
    study = what.add_parser("peers", help="MATEY beside a stencil, a ResNet, a U-Net and an FNO of the same cost")
    study.add_argument("--scale", choices=PEER_SCALES, default="laptop", help="data and size (laptop: the demo's data)")
    of_scales = {
        name: "; ".join(f"{key}: {getattr(scale, name)}" for key, scale in PEER_SCALES.items()) for name in SIZES
    }
    study.add_argument("--seconds", metavar="S,S", help=f"seconds of training per system ({of_scales['seconds']})")
    study.add_argument("--seeds", type=int, metavar="N", help=f"runs of each point ({of_scales['seeds']})")
    study.add_argument("--data", metavar="PATH,PATH", help="one data set for each system, in place of the scale's")
    study.add_argument(
        "--config", default="launch/runs/demo.yaml", metavar="YAML", help="MATEY's settings (%(default)s)"
    )
    study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    windows = f"windows to score on, per system and lead ({of_scales['max_windows']})"
    study.add_argument("--max-windows", type=int, metavar="N", help=windows)
    devices = "cpu: costs are CPU seconds, on one thread; cuda: GPU seconds (paper: cuda; others: cpu)"
    study.add_argument("--device", choices=("cpu", "cuda"), help=devices)
    study.set_defaults(check=check_peers)
    add_running(study)


def add_pretraining(what: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    """Add the flags of a study that pretrains many models."""
    tables = STUDIES[name]().tables
    title = tables["tiny"].title
    study = what.add_parser(name, help=f"{title[:1].lower()}{title[1:]}")
    study.add_argument("--scale", choices=tables, default="tiny", help="settings and size (tiny)")
    study.add_argument("--seeds", type=flags.whole(1), metavar="N", help="trainings of each model (tiny: 1, others: 3)")
    study.add_argument(
        "--models", metavar="NAME,NAME", help="models to train, as --list names them without seeds (all)"
    )
    study.add_argument("--deepspeed_config", default="ds_configs/zero1.json", help="JSON of DeepSpeed (%(default)s)")
    study.add_argument(
        "--launcher",
        help="command before launch/pretrain.py (this Python; long_sequences: four of it; paper: to be given)",
    )
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every training"
    )
    study.set_defaults(check=lambda _: None)
    add_planning(study)
    add_running(study)


def add_planning(study: argparse.ArgumentParser) -> None:
    """Add the flags of a study's plan."""
    machine = "plan for this machine: frontier, dgx-h100, cpu, or a YAML file (paper: frontier; others: cpu)"
    study.add_argument("--machine", metavar="NAME", help=machine)
    ranks = "ranks that --launcher starts (as the scale is meant); 1 trains on one what is meant for many"
    study.add_argument("--ranks", type=flags.whole(1), metavar="N", help=ranks)


def add_running(study: argparse.ArgumentParser) -> None:
    """Add the flags for a study's folder and for running its trainings."""
    study.add_argument(
        "--out", type=Path, default=PAPER, metavar="DIR", help="folder of this and other studies (%(default)s)"
    )
    how = study.add_mutually_exclusive_group()
    how.add_argument("--jobs", type=flags.whole(1, 1024), default=1, metavar="N", help="trainings at the same time (1)")
    how.add_argument("--submit", action="store_true", help="hand each training to Slurm as a job of its own")
    how.add_argument("--list", action="store_true", help="list the trainings and stop")
    how.add_argument("--plan", action="store_true", help="say what the trainings will cost and stop")
    study.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="one more option of sbatch, such as -APROJECT"
    )
    study.add_argument("--point", metavar="NAME", help="run this training alone, without table and plot")


def check_data_efficiency(args: argparse.Namespace) -> None:
    """Read the flags that hold lists, and the run's YAML, before slow imports."""
    scale = SCALES[args.scale]
    args.modes = chosen("--modes", args.modes or scale.modes, tuple(FINETUNE_MODES))
    args.starts = chosen("--starts", args.starts, STARTS)
    args.sizes = numbers("--sizes", args.sizes or scale.sizes[args.system])
    if not scale.simulates and args.pretrained is None and "pretrained" in args.starts:
        raise StudyError("--scale paper needs --pretrained RUN_OR_MODEL.")
    load_config(ROOT / scale.config.format(system=args.system), args.set)


def check_peers(args: argparse.Namespace) -> None:
    """Read the flags that hold numbers, the data and the YAML before slow imports."""
    scale = PEER_SCALES[args.scale]
    for name in (*SIZES, "device"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(scale, name))
    for flag, value in (("--seeds", args.seeds), ("--max-windows", args.max_windows)):
        if value < 1:
            raise StudyError(f"{flag} must be 1 or more, got {value}.")
    args.seconds = numbers("--seconds", args.seconds)
    paths = args.data.split(",") if args.data else scale.paths
    args.paths = paths_by_system(paths, WORK)  # empty if the study simulates its data
    load_config(args.config, args.set)


def chosen(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """Read comma-separated names."""
    names = text.split(",")
    for name in names:
        if name not in known:
            raise StudyError(f"{flag} takes {', '.join(known)}, separated by commas; got {name!r}.")
    return names


def numbers(flag: str, text: str) -> list[int]:
    """Read comma-separated whole numbers above 0."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise StudyError(f"{flag} takes whole numbers such as 1,6,12, got {text!r}.")
    return sorted({int(part) for part in parts})


if __name__ == "__main__":
    sys.exit(main())
