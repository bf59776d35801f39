r"""Reproduce a study from start to plot.

    python tools/reproduce.py data_efficiency --scale tiny
    python tools/reproduce.py data_efficiency --system thermals --sizes 1,6,12,24,48,96 --modes prepost,all \
        --starts pretrained,random --seeds 3 --scale paper --pretrained runs/NAME --launcher "deepspeed --num_gpus 8" \
        --ranks 8 --set train.accumulation=8

`data_efficiency` fine-tunes on more and more trajectories, from a pretrained model and from random weights. It also trains a
stencil, a ResNet and a U-Net on the same trajectories at about the same cost. All are scored on the same test trajectories (the
paper's figures 5 and 6). The scales `tiny` (minutes, to check that it works) and `laptop` (hours) simulate their data and start
from models/matey-micro unless --pretrained names another model. The scale `paper` has the paper's settings and reads its data
from data/. Its batch is 4 samples a rank, times the ranks that --launcher starts, times train.accumulation: 256 in the paper.

    python tools/reproduce.py peers --scale laptop --jobs 2 --out runs/paper

`peers` compares MATEY with other models that are trained on the same windows at the same cost. For each system it trains a
stencil fitted by least squares, a ResNet, a small U, a U-Net, an FNO (pip install 'matey-pde[baselines]') and, as `cells`, the
network of MATEY without tokens; MATEY is trained on each system alone and on all together. The cost is a number of CPU seconds
for each system; --data takes data of any systems in two dimensions. The table has the NRMSE divided by that of persistence, as
mean and deviation over the seeds. With several costs, such as --seconds 30,110, the study draws
curves. The scale `laptop` uses the data of `make demo`. launch/evaluate.py accepts the folder of a trained peer like that of a
run (runs/paper/peers-laptop/points/unet-shallow_water-110-0).

    python tools/reproduce.py adaptivity --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py fine_grid --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py schemes --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py scaling_of_tokens --scale laptop --jobs 2 --out runs/paper
    python tools/reproduce.py long_sequences --scale laptop --out runs/paper
    python tools/reproduce.py report --out runs/paper

These studies pretrain many models for the same number of steps. They compare uniform and adaptive tokens (the paper's figure
4), the same with a larger network on a finer grid, attention schemes at several sizes (figure 3), uniform and adaptive tokens
on larger and larger grids, and sequences of up to 65,536 tokens a sample on four ranks. Each prints the
errors divided by persistence's beside the measured cost of every model. The scales `tiny` (minutes, to check that it works)
and `laptop` (hours) simulate their data; `paper` has the paper's settings and reads its data from data/.

Every study writes results.csv, results.txt and results.png into a folder in --out that is named after the study and its scale.
If it is interrupted, the same command continues it. It runs --jobs trainings at the same time, or submits each training to
Slurm with --submit. --draw draws what is done, and trains nothing. --plan prints the expected cost, which the scale `paper`
prints before anything starts. `report` puts all studies of a folder on one page.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands import ROOT, WORK
from matey.config import flags, load_config, load_deepspeed_config
from matey.config.choices import FINETUNE_MODES
from matey.data import DataError, open_dataset
from matey.data.remote import within
from matey.process.start import entry_point
from matey.studies.cases import (
    COMPARED,
    FINETUNE_SCALES,
    PEERS_SCALES,
    PRETRAININGS,
    STARTS,
    SYSTEMS,
    StudyError,
    check_overrides,
)

PAPER = Path("runs/paper")
OF_ALL = dict.fromkeys(("output.dir", "train.seed"), "a study gives each training its own; see --out and --seeds.")


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="STUDY", dest="study")
    study = what.add_parser("data_efficiency", help="error against the number of training trajectories")
    study.add_argument("--system", choices=SYSTEMS, default="thermals", help="system to fine-tune on (thermals)")
    study.add_argument(
        "--scale", choices=FINETUNE_SCALES, default="tiny", help="size of the study, with its settings (tiny)"
    )
    sizes = "tiny: 1,6; others: 1,6,12,24,48,96 of thermals, 1,6,12,24 of mhd"
    study.add_argument("--sizes", metavar="N,N", help=f"numbers of training trajectories ({sizes})")
    modes = f"modes of fine-tuning: {', '.join(FINETUNE_MODES.own)} ({by_scale(FINETUNE_SCALES, 'modes')})"
    study.add_argument("--modes", metavar="MODE,MODE", help=modes)
    starts = "initial weights of MATEY, and other models that are trained on the same trajectories (%(default)s)"
    study.add_argument("--starts", metavar="START,START", default=",".join(STARTS), help=starts)
    seeds = f"number of trainings of each point ({by_scale(FINETUNE_SCALES, 'seeds')})"
    study.add_argument("--seeds", type=flags.whole(1), metavar="N", help=seeds)
    study.add_argument("--pretrained", metavar="RUN_OR_MODEL", help="folder of the run or model to start from")
    study.set_defaults(check=check_data_efficiency)
    add_training(study, "launch/finetune.py")
    add_running(study)
    add_peers(what)
    for name in PRETRAININGS:
        add_pretraining(what, name)
    page = what.add_parser("report", help="one page about all studies in a folder")
    page.add_argument("--out", type=Path, default=PAPER, metavar="DIR", help="folder of the studies (%(default)s)")
    page.set_defaults(check=lambda _: None)
    args = top.parse_args()
    check_overrides(vars(args).get("set", ()), OF_ALL)
    if vars(args).get("point") is not None:
        for other in ("draw", "list", "plan"):
            if vars(args).get(other):
                raise StudyError(f"--point trains one training of a study; leave it out, or leave out --{other}.")
    args.check(args)
    if "deepspeed_config" in args:
        load_deepspeed_config(args.deepspeed_config)
    from matey.commands.reproduce import main as reproduce

    return reproduce(args)


def add_peers(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the flags of the comparison with other models."""
    title = "MATEY beside other networks of the same cost, and beside its own without tokens"
    study = what.add_parser("peers", help=title)
    study.add_argument("--scale", choices=PEERS_SCALES, default="laptop", help="size of the study (laptop)")
    seconds = f"seconds of training for each system ({by_scale(PEERS_SCALES, 'seconds')})"
    study.add_argument("--seconds", metavar="S,S", help=seconds)
    seeds = f"number of trainings of each point ({by_scale(PEERS_SCALES, 'seeds')})"
    study.add_argument("--seeds", type=flags.whole(1), metavar="N", help=seeds)
    models = "models to train, joint being MATEY on all systems (%(default)s)"
    study.add_argument("--models", metavar="NAME,NAME", default=",".join(COMPARED), help=models)
    study.add_argument("--data", metavar="PATH,PATH", help="one data set for each system, instead of the scale's data")
    study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    devices = (
        "device, which decides the unit of cost: CPU seconds on one thread, or GPU seconds (paper: cuda; others: cpu)"
    )
    study.add_argument("--device", choices=("cpu", "cuda"), help=devices)
    study.set_defaults(check=check_peers)
    add_running(study)


def add_pretraining(what: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    """Add the flags of a study that pretrains many models."""
    tables, title = PRETRAININGS[name].tables, PRETRAININGS[name].title
    study = what.add_parser(name, help=f"{title[:1].lower()}{title[1:]}")
    study.add_argument("--scale", choices=tables, default="tiny", help="size of the study, with its settings (tiny)")
    seeds = f"number of trainings of each model ({by_scale(tables, 'seeds')})"
    study.add_argument("--seeds", type=flags.whole(1), metavar="N", help=seeds)
    study.add_argument(
        "--models", metavar="NAME,NAME", help="models to train, by their names in --list without the seed (all)"
    )
    study.set_defaults(check=lambda _: None)
    add_training(study, "launch/pretrain.py", "long_sequences: this Python, on the ranks of its scale; ")
    add_running(study)


def add_training(study: argparse.ArgumentParser, script: str, others: str = "") -> None:
    """Add the flags for the trainings of a study, which a script runs, and for their plan."""
    study.add_argument(
        "--deepspeed_config", default="ds_configs/zero1.json", metavar="JSON", help="JSON of DeepSpeed (%(default)s)"
    )
    launcher = f"command that starts {script} (this Python; {others}paper: none, it must be given)"
    study.add_argument("--launcher", type=command, metavar="COMMAND", help=launcher)
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every training"
    )
    machine = "machine to plan for: frontier, dgx-h100, cpu, or a YAML file (paper: frontier; others: cpu)"
    study.add_argument("--machine", metavar="NAME", help=machine)
    ranks = (
        "number of ranks that --launcher starts, for the plan (that of the scale); 1 to train on one at the scale paper"
    )
    study.add_argument("--ranks", type=flags.whole(1), metavar="N", help=ranks)


def command(text: str) -> str:
    """Read a command; it is one if a shell could take it apart."""
    try:
        shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no command: {error}") from None
    return text


def by_scale(scales: Mapping[str, object], name: str) -> str:
    """Return the default of a flag at each scale, as text."""
    return "; ".join(f"{key}: {getattr(scale, name)}" for key, scale in scales.items())


def add_running(study: argparse.ArgumentParser) -> None:
    """Add the flags for a study's folder and for running its trainings."""
    study.add_argument("--out", type=Path, default=PAPER, metavar="DIR", help="folder for all studies (%(default)s)")
    how = study.add_mutually_exclusive_group()
    how.add_argument("--jobs", type=flags.whole(1, 1024), default=1, metavar="N", help="trainings at the same time (1)")
    how.add_argument("--submit", action="store_true", help="submit each training to Slurm as its own job")
    how.add_argument("--draw", action="store_true", help="draw the trainings that are done, and train none")
    how.add_argument("--list", action="store_true", help="print the names of the trainings and stop")
    how.add_argument("--plan", action="store_true", help="print the expected cost of the trainings and stop")
    sbatch = "one more option for sbatch, such as -APROJECT"
    study.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help=sbatch)
    study.add_argument("--point", metavar="NAME", help="run only this training, without table and plot")


def check_data_efficiency(args: argparse.Namespace) -> None:
    """Read the flags that hold lists, and the run's YAML, before slow imports."""
    scale = FINETUNE_SCALES[args.scale]
    args.modes = chosen("--modes", args.modes or scale.modes, tuple(FINETUNE_MODES))
    args.starts = chosen("--starts", args.starts, STARTS)
    args.sizes = numbers("--sizes", args.sizes or scale.sizes[args.system])
    if not scale.simulates and args.pretrained is None and "pretrained" in args.starts:
        raise StudyError("--scale paper needs --pretrained RUN_OR_MODEL.")
    own = {
        "finetune.train": "see --modes.",
        "finetune.pretrained": "see --pretrained and --starts.",
        "data.trajectories": "see --sizes.",
    }
    simulated = (
        {"data.sets": f"the scale {args.scale} simulates its data; see --scale paper."} if scale.simulates else {}
    )
    check_overrides(args.set, own | simulated)
    load_config(ROOT / scale.config.format(system=args.system), args.set)


def check_peers(args: argparse.Namespace) -> None:
    """Read the flags that hold numbers, the data and the YAML before slow imports."""
    scale = PEERS_SCALES[args.scale]
    check_overrides(args.set, {"data.sets": "see --data.", "train.steps": "it follows from --seconds."})
    args.seconds = numbers("--seconds", args.seconds or scale.seconds)
    args.models = chosen("--models", args.models, COMPARED)
    if args.data or not (args.list or args.plan or args.draw):
        args.paths = {}
        for path in args.data.split(",") if args.data else scale.paths.values():
            full = str(within(WORK, path))
            try:
                system = open_dataset(full).system
            except DataError as error:
                raise StudyError(f"--data {path}: {error}") from None
            if system in args.paths:
                raise StudyError(f"{path} and {args.paths[system]} both hold {system}; give one set for each system.")
            args.paths[system] = full
    else:  # the scale's data need not be there; empty if the study simulates them
        args.paths = {system: str(within(WORK, path)) for system, path in scale.paths.items()}
    load_config("launch/runs/demo.yaml", args.set)


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
