r"""Reproduce a study from start to plot.

    python tools/reproduce.py data_efficiency --scale tiny
    python tools/reproduce.py data_efficiency --system thermals --sizes 1,6,12,24,48,96 --modes prepost,all \
        --starts pretrained,random --seeds 3 --scale paper --pretrained runs/NAME --launcher "deepspeed --num_gpus 8" \
        --set train.accumulation=8

`data_efficiency` fine-tunes on more and more trajectories, from a pretrained model and from random weights, and scores each run
on the same test trajectories (the paper's figures 5 and 6). The scales `tiny` (minutes, to see that it works) and `laptop`
(hours) simulate their data and start from models/matey-micro where --pretrained names nothing else; `paper` has the paper's
settings and expects its data in data/. Its batch of 256 is 4 a rank, times the ranks that --launcher starts, times
train.accumulation.

    python tools/reproduce.py peers --seconds 110 --seeds 3 --out runs/peers

`peers` trains MATEY and other models on the same windows at the same cost: a stencil fitted by least squares, a ResNet, a U-Net
and an FNO (pip install 'matey-pde[baselines]') for each system, MATEY for each system and jointly on all, for so many CPU
seconds a system. It prints NRMSE over that of persistence with mean and deviation over the seeds. Several costs, as in
--seconds 30,110, make curves. The data is that of `make demo`. launch/evaluate.py takes the folders of trained peers
(runs/peers/points/unet-shallow_water-110-0) as it takes runs.

    python tools/reproduce.py adaptivity --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py fine_grid --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py schemes --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py scaling_of_tokens --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py report --out runs/paper

These pretrain many models for equally many steps: uniform and adaptive tokens (the paper's figure 4), the same with a larger
network on a finer grid, the attention schemes at several sizes (figure 3), and uniform and adaptive tokens on more and more
cells. They print errors over persistence beside what each model costs, measured. The scales `tiny` (minutes, to see that it
works), `small` and `laptop` (hours) simulate their data; `paper` has the paper's settings, and expects its data in data/.

All studies write results.csv, results.txt and results.png into --out (those that pretrain into a folder of their name there),
go on where they were interrupted, run --jobs trainings at the same time, and hand each training to Slurm with --submit.
`report` puts all studies of a folder on one page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matey.commands import ROOT, WORK
from matey.config import flags, load_config
from matey.config.choices import FINETUNE_MODES
from matey.entry_point import entry_point
from matey.studies.data_efficiency.scales import SCALES, SYSTEMS
from matey.studies.folder import StudyError
from matey.studies.peers.paths import paths_by_system
from matey.studies.pretraining.tables import STUDIES

PAPER = Path("runs/paper")


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
    study.add_argument("--starts", default="pretrained,random", help="initial weights (pretrained,random)")
    study.add_argument("--seeds", type=int, metavar="N", help="runs of each point (tiny: 1, others: 3)")
    study.add_argument("--pretrained", metavar="RUN_OR_MODEL", help="run or model to start from")
    study.add_argument("--deepspeed_config", default="ds_configs/zero1.json", help="JSON of DeepSpeed (%(default)s)")
    study.add_argument("--launcher", default=sys.executable, help="command before launch/finetune.py (this Python)")
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every fine-tuning"
    )
    study.add_argument(
        "--out",
        type=Path,
        default=Path("runs/data_efficiency"),
        metavar="DIR",
        help="folder of the study (%(default)s)",
    )
    study.set_defaults(check=check_data_efficiency)
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
    data = "data/demo/shallow_water,data/demo/diffusion_reaction"
    study.add_argument("--seconds", default="110", metavar="S,S", help="seconds of training per system (110)")
    study.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each point (3)")
    study.add_argument("--data", default=data, metavar="PATH,PATH", help="one data set for each system (%(default)s)")
    study.add_argument(
        "--config", default="launch/runs/demo.yaml", metavar="YAML", help="MATEY's settings (%(default)s)"
    )
    study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    study.add_argument(
        "--max-windows", type=int, default=200, metavar="N", help="windows to score on, per system and lead (200)"
    )
    devices = "cpu: costs are CPU seconds, on one thread; cuda: GPU seconds (cpu)"
    study.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=devices)
    study.add_argument(
        "--out", type=Path, default=Path("runs/peers"), metavar="DIR", help="folder of the study (%(default)s)"
    )
    study.set_defaults(check=check_peers)
    add_running(study)


def add_pretraining(what: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    """Add the flags of a study that pretrains many models."""
    tables = STUDIES[name]().tables
    title = tables["tiny"].title
    study = what.add_parser(name, help=f"{title[:1].lower()}{title[1:]}")
    study.add_argument("--scale", choices=tables, default="tiny", help="settings and size (tiny)")
    study.add_argument("--seeds", type=flags.whole(1), metavar="N", help="trainings of each model (tiny: 1, others: 3)")
    study.add_argument("--deepspeed_config", default="ds_configs/zero1.json", help="JSON of DeepSpeed (%(default)s)")
    study.add_argument("--launcher", default=sys.executable, help="command before launch/pretrain.py (this Python)")
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every training"
    )
    study.add_argument(
        "--out", type=Path, default=PAPER, metavar="DIR", help="folder of this and other studies (%(default)s)"
    )
    study.set_defaults(check=lambda _: None)
    add_running(study)


def add_running(study: argparse.ArgumentParser) -> None:
    """Add the flags that say how the trainings of a study are run."""
    how = study.add_mutually_exclusive_group()
    how.add_argument("--jobs", type=flags.whole(1, 1024), default=1, metavar="N", help="trainings at the same time (1)")
    how.add_argument("--submit", action="store_true", help="hand each training to Slurm as a job of its own")
    how.add_argument("--list", action="store_true", help="list the trainings and stop")
    study.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="one more option of sbatch, such as -APROJECT"
    )
    study.add_argument("--point", metavar="NAME", help="run this training alone, without table and plot")


def check_data_efficiency(args: argparse.Namespace) -> None:
    """Read the flags that hold lists, and the run's YAML, before anything is imported that takes seconds."""
    scale = SCALES[args.scale]
    args.modes = chosen("--modes", args.modes or scale.modes, tuple(FINETUNE_MODES))
    args.starts = chosen("--starts", args.starts, ("pretrained", "random"))
    args.sizes = numbers("--sizes", args.sizes or scale.sizes[args.system])
    if not scale.simulates and args.pretrained is None and "pretrained" in args.starts:
        raise StudyError("--scale paper needs --pretrained RUN_OR_MODEL.")
    load_config(ROOT / scale.config.format(system=args.system), args.set)


def check_peers(args: argparse.Namespace) -> None:
    """Read the flags that hold numbers, the data and the YAML before anything is imported that takes seconds."""
    for flag, value in (("--seeds", args.seeds), ("--max-windows", args.max_windows)):
        if value < 1:
            raise StudyError(f"{flag} must be 1 or more, got {value}.")
    args.seconds = numbers("--seconds", args.seconds)
    args.paths = paths_by_system(args.data.split(","), WORK)
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
