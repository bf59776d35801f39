"""Study how a run scales: the same few steps on several numbers of ranks or nodes, measured, and a model fitted to them.

    python tools/scaling_study.py plan --mode weak --ranks 1,2,4 --config RUN.yaml --deepspeed_config JSON --out DIR
    python tools/scaling_study.py plan --mode strong --nodes 1,2,4,8,16,32,64,92 --machine frontier --global_batch 11776 ...
    python tools/scaling_study.py run --out DIR [--local | --submit]
    python tools/scaling_study.py report --out DIR

`plan` writes a folder for each point: run YAML, DeepSpeed JSON, job, expected cost. `run` starts the jobs here, one after
another, or hands them to Slurm; points that are finished are skipped. `report` writes points.csv and report.html.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matey.config import ConfigError, load_config, load_deepspeed_config
from matey.data.trajectories import DataError
from matey.scaling.engine import read_engine
from matey.scaling.lengths import lengths_of
from matey.scaling.machine import load_machine
from matey.scaling.making import make_study
from matey.scaling.running import run_here, submit
from matey.scaling.study import load_study, make_points

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"frontier": Path("launch/frontier/pretrain.sbatch")}  # other machines: launch/slurm/pretrain.sbatch


def main() -> int:
    """Run from the command line; 0 if all is well, 1 if a point failed, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    try:
        return {"plan": plan, "run": run, "report": report}[args.what](args)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: Cannot write to {args.out} ({error.strerror}); choose another --out.", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = whole.add_subparsers(dest="what", required=True)
    make = what.add_parser("plan", help="write the points")
    make.add_argument("--mode", choices=("weak", "strong", "sequence"), required=True, help="quantity kept the same: samples "
                      "of a rank, the global batch, or one sample that all ranks share")  # fmt: skip
    sizes = make.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--ranks", type=numbers, help="numbers of ranks on this machine, such as 1,2,4")
    sizes.add_argument(
        "--nodes", type=numbers, help="numbers of nodes of a cluster, with a rank on every GPU of each node"
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
    make.add_argument("--grid", type=numbers, help="sequence: cells y,x or z,y,x of a sample that one rank holds")
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
    show = what.add_parser("report", help="write points.csv and report.html")
    show.add_argument(
        "--machine", action="append", default=[], help="one more machine on which the run is modelled (frontier)"
    )
    for command in (make, start, show):
        command.add_argument("--out", type=Path, required=True, help="folder of the study")
    return whole


def plan(args: argparse.Namespace) -> int:
    """Write the study and print what its points should cost."""
    name = args.machine or ("frontier" if args.nodes else "cpu")
    machine = load_machine(name)
    name = str(Path(name).absolute()) if Path(name).suffix in (".yaml", ".yml") else name
    run, deepspeed_config = load_config(args.config, args.set), load_deepspeed_config(args.deepspeed_config)
    points = make_points(args.nodes or args.ranks, machine.dies_per_node if args.nodes else None)
    lengths = None
    if args.mode == "sequence":
        limit = args.memory_limit or run.parallel.memory_limit
        precision = read_engine(deepspeed_config).precision
        lengths = lengths_of(run, args.grid, limit and limit * 2**30, precision, can_measure=not args.nodes)
    script = None
    if args.nodes:
        script = args.script or ROOT / SCRIPTS.get(name, Path("launch/slurm/pretrain.sbatch"))
    study, runs, costs = make_study(
        args.out,
        args.mode,
        run,
        deepspeed_config,
        points,
        name,
        machine,
        warm_up=args.warm_up,
        timed_steps=args.steps,
        global_batch=args.global_batch,
        lengths=lengths,
        script=script,
        minutes=args.limit,
    )
    print(
        f"{'point':12}{'ranks':>7}{'samples':>9}{'of a rank':>11}{'step':>10}{'tokens/s':>12}{'memory':>12}{'node hours':>12}"
    )
    for point, own, cost in zip(study.points, runs, costs, strict=True):
        micro = f"{own.train.accumulation} x {own.train.micro_batch}"
        hours = cost.nodes * study.steps * cost.seconds.total / 3600
        memory = f"{cost.memory.total / 2**30:.2f} GiB"
        print(
            f"{point.name:12}{point.ranks:7}{cost.samples_per_step:9}{micro:>11}{cost.seconds.total:8.3g} s"
            f"{cost.tokens_per_second:12,.0f}{memory:>12}{hours:12.3g}{'' if cost.fits else '   does not fit'}"
        )
    largest = max(own.train.micro_batch for own in runs)
    small = [
        own.train.micro_batch for own in runs if own.train.accumulation > 1 and own.train.micro_batch < largest / 2
    ]
    if small:
        print(
            f"Micro-batches shrink from {largest} samples to {min(small)}, since no larger number up to train.micro_batch "
            "divides a rank's share, and that is slow; choose both such that it does."
        )
    print(f"Expected on {machine.name}. Next: python tools/scaling_study.py run --out {args.out}")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run or submit the points that are not finished."""
    study = load_study(args.out)
    if args.submit:
        submit(study, ROOT, args.sbatch, print)
        return 0
    failures = run_here(study, ROOT, args.limit * 60, lambda line: print(line, flush=True))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def report(args: argparse.Namespace) -> int:
    """Write the table and the page."""
    from matey.scaling.report import write_report

    print(write_report(load_study(args.out), args.machine))
    return 0


def numbers(text: str) -> tuple[int, ...]:
    """Read comma-separated integers."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
