r"""Run a study from start to plot: it trains many models, and sets their errors beside what they cost.

    matey reproduce adaptivity --scale laptop --out runs/paper
    matey reproduce peers --models cells,MATEY --seconds 60,240 --seeds 3 --out runs/paper
    matey reproduce data_efficiency --system thermals --sizes 1,6,12,24,48,96 --modes prepost,all \
        --starts pretrained,random --scale paper --pretrained runs/NAME --launcher "deepspeed --num_gpus 8" --ranks 8
    matey reproduce scaling --mode weak --ranks 1,2,4 --config RUN.yaml --out DIR

adaptivity, fine_grid (the paper's figure 4) and schemes (figure 3) pretrain models for the same number of steps.
data_efficiency fine-tunes on more and more trajectories, from a pretrained model and from random weights, beside peers (figures
5 and 6). peers compares MATEY with other models that are trained on the same windows at the same cost, in CPU seconds of one
thread or seconds of a GPU. scaling takes the same few training steps on several numbers of ranks or nodes.

The scales tiny (minutes, to see that a study works) and laptop (hours) simulate their data; paper has the paper's settings and
reads its data from data/. A study writes results.csv, results.txt and results.png into a folder in --out. The same command
continues one that was stopped; several calls may share a folder.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands import ROOT, WORK
from matey.config import flags, load_config, load_deepspeed_config
from matey.config.schema import FINETUNE_MODES
from matey.data import DataError, open_dataset
from matey.data.remote import within
from matey.process.start import entry_point
from matey.studies.cases import (
    COMPARED,
    DEMO,
    FINETUNE_SCALES,
    PEERS_SCALES,
    PRETRAININGS,
    STARTS,
    SYSTEMS,
    Scale,
    StudyError,
    check_overrides,
    stated_by,
)

OF_ALL = dict.fromkeys(("output.dir", "train.seed"), "a study gives each training its own; see --out and --seeds.")
SIMULATED = {"data.sets": "this scale simulates its data; see --scale paper."}


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    check_overrides(args.set, OF_ALL)
    if args.study != "scaling":
        scales: dict[str, Mapping[str, Scale]] = {name: study.scales for name, study in PRETRAININGS.items()}
        scales |= {"peers": PEERS_SCALES, "data_efficiency": FINETUNE_SCALES[getattr(args, "system", "thermals")]}
        args.size = scales[args.study][args.scale]
        args.seeds = args.seeds or args.size.seeds
        is_launched = args.study == "peers" or args.launcher or args.ranks
        if args.scale == "paper" and not (is_launched or args.plan):
            raise StudyError(
                f"{args.study} at the scale paper is meant for {args.size.ranks} ranks: give the command that starts them, as "
                "in --launcher 'srun python', or --ranks 1 if you mean one."
            )
    match args.study:
        case "data_efficiency":
            check_data_efficiency(args)
        case "peers":
            check_peers(args)
        case "scaling":
            load_config(args.config, args.set)
        case _:
            names = args.models.split(",") if args.models else []
            check_overrides(args.set, stated_by(case for case in args.size.cases if not names or case.name in names))
    if "deepspeed_config" in args:
        load_deepspeed_config(args.deepspeed_config)
    from matey.commands.reproduce import main as reproduce

    return reproduce(args)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="STUDY", dest="study")

    def add(name: str, title: str, scales: Sequence[str] = (), *, is_launched: bool = True) -> argparse.ArgumentParser:
        study = what.add_parser(name, help=title, description=title)
        flag = study.add_argument
        if scales:
            flag("--scale", choices=scales, default="laptop" if name == "peers" else "tiny", help="size (%(default)s)")
            flag("--seeds", type=flags.whole(1), metavar="N", help="trainings of each model (the scale's)")
        if is_launched:
            engine = "JSON of DeepSpeed (%(default)s)"
            flag("--deepspeed_config", default="ds_configs/zero1.json", metavar="JSON", help=engine)
            machine = "machine to plan for, or a YAML file (paper, nodes: frontier; others: cpu)"
            flag("--machine", metavar="NAME", help=machine)
        if is_launched and scales:
            launcher = "command that starts a training (this Python, on the ranks of the scale; paper: none)"
            flag("--launcher", type=shlex.split, metavar="COMMAND", help=launcher)
            flag("--ranks", type=flags.whole(1), metavar="N", help="ranks of a training (the scale's)")
        flag("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
        flag("--out", type=Path, default=Path("runs/paper"), metavar="DIR", help="folder of all studies (%(default)s)")
        how = study.add_mutually_exclusive_group()
        how.add_argument("--plan", action="store_true", help="print names and expected costs of the trainings and stop")
        slurm = "write a script that submits a job of Slurm for each training and stop"
        how.add_argument("--slurm", action="store_true", help=slurm)
        how.add_argument("--point", metavar="NAME", help="run only this training")
        return study

    for name, question in PRETRAININGS.items():
        flag = add(name, question.title, [*question.scales]).add_argument
        flag("--models", metavar="NAME,NAME", help="models to train, by their names in --plan (all)")
    title = "MATEY beside other networks, and beside its own without tokens"
    flag = add("peers", title, [*PEERS_SCALES], is_launched=False).add_argument
    costs = "costs of training on each system, in seconds (the scale's)"
    flag("--seconds", type=flags.wholes(1), metavar="S,S", help=costs)
    models = f"models to train, joint being MATEY on all systems ({','.join(COMPARED)})"
    flag("--models", type=some_of(COMPARED), metavar="NAME,NAME", default=COMPARED, help=models)
    flag("--data", metavar="PATH,PATH", help="one data set for each system, instead of the scale's data")
    title = "Error against the number of training trajectories"
    flag = add("data_efficiency", title, [*FINETUNE_SCALES["mhd"]]).add_argument
    flag("--system", choices=SYSTEMS, default="thermals", help="system to fine-tune on (thermals)")
    flag("--sizes", type=flags.wholes(1), metavar="N,N", help="numbers of training trajectories (the scale's)")
    modes = f"modes of fine-tuning: {', '.join(FINETUNE_MODES.own)} (the scale's)"
    flag("--modes", type=some_of(FINETUNE_MODES), metavar="MODE,MODE", help=modes)
    starts = f"initial weights of MATEY, and other models that are trained on the same data ({','.join(STARTS)})"
    flag("--starts", type=some_of(STARTS), metavar="START,START", default=STARTS, help=starts)
    flag("--pretrained", metavar="RUN_OR_MODEL", help="folder of the run or model to start from")
    study = add("scaling", "The same steps on several numbers of ranks or nodes")
    flag, sizes = study.add_argument, study.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--ranks", type=flags.wholes(1), metavar="N,N", help="numbers of ranks on this machine")
    sizes.add_argument("--nodes", type=flags.wholes(1), metavar="N,N", help="numbers of nodes, a rank on every GPU")
    mode = "quantity kept the same: samples of a rank, the global batch, or one sample that all ranks share (weak)"
    flag("--mode", choices=("weak", "strong", "sequence"), default="weak", help=mode)
    flag("--config", required=True, metavar="YAML", help="run at the smallest point")
    flag("--global_batch", type=flags.whole(1), metavar="N", help="strong: samples of a step (the smallest point's)")
    flag("--steps", type=flags.whole(1), default=10, metavar="N", help="timed steps (10)")
    flag("--warm_up", type=flags.whole(0), default=3, metavar="N", help="steps before them (3)")
    flag("--script", type=Path, metavar="FILE", help="job script of a point on nodes (the machine's)")
    return top


def some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of names separated by commas."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {text!r}")
        return names

    return read


def check_data_efficiency(args: argparse.Namespace) -> None:
    """Check the flags that the study states itself, and the run's YAML, before slow imports."""
    args.modes, args.sizes = args.modes or args.size.modes, sorted(set(args.sizes or args.size.sizes))
    if args.scale == "paper" and args.pretrained is None and "pretrained" in args.starts:
        raise StudyError("--scale paper needs --pretrained RUN_OR_MODEL.")
    own = {"finetune.train": "see --modes.", "data.trajectories": "see --sizes."}
    own["finetune.pretrained"] = "see --pretrained and --starts."
    check_overrides(args.set, own | (SIMULATED if args.size.data else {}))
    load_config(ROOT / args.size.config, args.set)


def check_peers(args: argparse.Namespace) -> None:
    """Check the flags that the study states itself, the data and the YAML before slow imports."""
    own = {"data.sets": "see --data.", "train.steps": "it follows from --seconds."}
    check_overrides(args.set, own | {"data.workers": "the CPU time of other processes would not be counted."})
    args.seconds = sorted(set(args.seconds or args.size.seconds))
    args.paths = {}
    for path in args.data.split(",") if args.data else args.size.paths:
        full = str(within(WORK, path))
        try:
            system = open_dataset(full).system
        except DataError as error:
            raise StudyError(f"--data {path}: {error}") from None
        if system in args.paths:
            raise StudyError(f"{path} and {args.paths[system]} both hold {system}; give one set for each system.")
        args.paths[system] = full
    load_config(ROOT / DEMO, args.set)


if __name__ == "__main__":
    sys.exit(main())
