"""Study how a run scales: the same few steps on several numbers of ranks or nodes, measured, and a model fitted to them.

    python tools/scaling_study.py plan --mode weak --ranks 1,2,4 --config RUN.yaml --deepspeed_config JSON --out DIR
    python tools/scaling_study.py plan --mode strong --nodes 1,2,4,8,16,32,64,92 --machine frontier --global_batch 11776 ...
    python tools/scaling_study.py run --out DIR [--local | --submit]
    python tools/scaling_study.py report --out DIR

`plan` writes a folder for each point: run YAML, DeepSpeed JSON, job. `run` starts the jobs here, one after
another, or hands them to Slurm; points that are finished are skipped. `report` writes tables and plots.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import ConfigError, flags, load_config, load_deepspeed_config
from matey.process.entry_point import entry_point
from matey.studies.cases import StudyError


@entry_point
def main() -> int:
    """Run from the command line; 0 if all is well, 1 if a point failed, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    try:
        # Each raises a mistake in its input before slow imports.
        if args.what == "plan":
            load_config(args.config, args.set)
            load_deepspeed_config(args.deepspeed_config)
        else:
            (args.out / "study.json").read_bytes()
    except FileNotFoundError:
        plan = f"{flags.started_as('tools/scaling_study.py', 'study')} plan --out {quote(str(args.out))}"
        raise StudyError(f"{args.out} holds no study; make one with `{plan}`.") from None
    except OSError as error:
        raise ConfigError(f"Cannot read {args.out} ({error.strerror}); choose another --out.") from None
    from matey.commands.scaling_study import main as scaling_study

    return scaling_study(args)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = whole.add_subparsers(dest="what", required=True)
    make = what.add_parser("plan", help="write the points")
    make.add_argument("--mode", choices=("weak", "strong", "sequence"), required=True, help="quantity kept the same: samples "
                      "of a rank, the global batch, or one sample that all ranks share")  # fmt: skip
    sizes = make.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--ranks", type=flags.wholes(1), help="numbers of ranks on this machine, such as 1,2,4")
    sizes.add_argument(
        "--nodes", type=flags.wholes(1), help="numbers of nodes of a cluster, with a rank on every GPU of each node"
    )
    make.add_argument("--config", required=True, help="YAML of the run at the smallest point")
    make.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of that YAML")
    make.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine")
    make.add_argument(
        "--machine", help="name or file of the machine for which costs are estimated (cpu; with --nodes: frontier)"
    )
    make.add_argument(
        "--script", type=Path, help="job script that the jobs of the points are made from (that of the machine)"
    )
    make.add_argument("--limit", type=int, default=30, help="minutes that Slurm gives a job (30)")
    make.add_argument("--steps", type=int, default=10, help="number of timed steps (10)")
    make.add_argument("--warm_up", type=int, default=3, help="number of steps before them that are not timed (3)")
    make.add_argument("--global_batch", type=int, help="strong: samples of a step (those of the smallest point)")
    make.add_argument(
        "--grid",
        type=flags.wholes(1, counts=(2, 3)),
        help="sequence: cells y,x or z,y,x of a sample that one rank holds",
    )
    make.add_argument("--memory_limit", type=float, help="sequence: GiB that the activations of a rank may take "
                      "(parallel.memory_limit, or what that sample takes on one rank)")  # fmt: skip
    start = what.add_parser("run", help="run the points, or submit their jobs")
    where = start.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="run them on this machine, one after another (the default)")
    where.add_argument("--submit", action="store_true", help="submit them by sbatch, each after the one before")
    start.add_argument("--limit", type=float, default=15, help="minutes for each point on this machine (15)")
    start.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="one more option of sbatch, such as -APROJECT"
    )
    show = what.add_parser("report", help="print and write tables and plots")
    for command in (make, start, show):
        command.add_argument("--out", type=Path, required=True, help="folder of the study")
    return whole


if __name__ == "__main__":
    sys.exit(main())
