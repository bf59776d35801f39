"""Plans, runs and reports a study of how a run scales, for tools/scaling_study.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote

from matey.commands import ROOT
from matey.config import load_config, load_deepspeed_config
from matey.config.flags import started_as
from matey.mistakes import writing
from matey.planning.engine import read_engine
from matey.planning.machine import load_machine
from matey.studies.scaling import lengths_of, load_study, make_points, make_study, run_here, submit
from matey.studies.scaling_report import write_report
from matey.text_table import text_table

SCRIPTS = {"frontier": Path("launch/frontier/pretrain.sbatch")}  # other machines: launch/slurm/pretrain.sbatch


def main(args: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code of the tool."""
    with writing(args.out):
        if args.what == "report":
            print(write_report(load_study(args.out)))
            return 0
        return {"plan": plan, "run": run}[args.what](args)


def plan(args: argparse.Namespace) -> int:
    """Write the study and print the expected cost of its points."""
    name = args.machine or ("frontier" if args.nodes else "cpu")
    machine = load_machine(name)
    name = str(Path(name).absolute()) if Path(name).suffix in (".yaml", ".yml") else name
    run, deepspeed_config = load_config(args.config, args.set), load_deepspeed_config(args.deepspeed_config)
    points = make_points(args.nodes or args.ranks, machine.devices_per_node if args.nodes else None)
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
    rows = [
        (
            point.name,
            f"{point.ranks}",
            f"{cost.samples_per_step}",
            f"{own.train.accumulation} x {own.train.micro_batch}",
            f"{cost.seconds.total:.3g} s",
            f"{cost.tokens_per_second:,.0f}",
            f"{cost.memory.total / 2**30:.2f} GiB",
            f"{cost.nodes * study.steps * cost.seconds.total / 3600:.3g}",
            "" if cost.fits else "does not fit",
        )
        for point, own, cost in zip(study.points, runs, costs, strict=True)
    ]
    print(text_table(("point", "ranks", "samples", "of a rank", "step", "tokens/s", "memory", "node hours", ""), rows))
    print(
        f"Expected on {machine.name}. Next: {started_as('tools/scaling_study.py', 'study')} run --out {quote(str(args.out))}"
    )
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
