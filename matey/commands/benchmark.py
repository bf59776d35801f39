"""Measures the cost of a training step, for tools/benchmark.py."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from matey.benchmark.blocking import blocking_points
from matey.benchmark.sequence import longer, longest, run_point, summarise
from matey.benchmark.step import Case, cases_of_sweep, measure
from matey.mistakes import Mistake, writing
from matey.process.start import keep_freed_memory
from matey.studies.engine import write_table
from matey.text_table import text_table


def main(args: argparse.Namespace) -> int:
    """Measure; return 0 if all went well."""
    torch.set_num_threads(1)
    try:
        run(args)
    except (ValueError, RuntimeError) as error:
        raise Mistake(str(error)) from None
    return 0


def run(args: argparse.Namespace) -> None:
    """Run the measurement of the command line."""
    if args.what == "step" and args.device == "cpu":
        keep_freed_memory()  # as training does
    if args.what == "sequence":
        with writing(args.out):
            sequence(args)
    elif args.what == "blocking":
        for ranks in args.ranks:
            for point in blocking_points(ranks):
                print(json.dumps(point))
    elif args.sweep:
        with writing(args.out):
            sweep(args.out, args.repeat)
    else:
        (speed,) = measure([case_of(args)], args.repeat)
        print(json.dumps(speed.as_row()))


def sequence(args: argparse.Namespace) -> None:
    """Measure every size of the group; write and print the table."""
    sizes = sorted(set(args.ranks))
    case = case_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for ranks in tqdm(sizes, desc="sequence", unit=" sizes", disable=None):
        point = run_point(case, ranks, args.repeat)
        if not rows:
            base, most = point, point["num_tokens"]
        else:  # a sample that takes about as much memory per rank as the case in one process
            points = [point, run_point(longer(case, ranks), ranks, before=case)]
            most = longest(points, base["activation_bytes"][0])
        rows.append(summarise(base, point, most))
    write_table(args.out / "sequence.csv", rows)
    for row in rows:
        print(json.dumps(row))
    print(f"Table: {args.out / 'sequence.csv'}")


def case_of(args: argparse.Namespace) -> Case:
    """Return the case that the command line describes."""
    names = {field.name for field in fields(Case)} & set(vars(args)) - {"dtype"}
    dtype = getattr(torch, getattr(args, "dtype", "float32"))
    return Case(**{name: getattr(args, name) for name in names}, dtype=dtype)


def sweep(folder: Path, repeat: int) -> None:
    """Time all cases of the sweep, group by group; write and print their table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    groups = cases_of_sweep()
    with tqdm(total=sum(map(len, groups)), desc="sweep", unit=" cases", disable=None) as bar:
        for cases in groups:
            speeds = measure(cases, repeat)
            rows += [speed.as_row() | {"over_uniform": speed.step_seconds / speeds[0].step_seconds} for speed in speeds]
            bar.update(len(cases))
    write_table(folder / "step.csv", rows)
    print(text(rows))
    print(f"\nTable: {folder / 'step.csv'}")


def text(rows: list[dict[str, Any]]) -> str:
    """Format the most important columns as a plain table."""
    head = (
        "grid",
        "scheme",
        "tokens",
        "patches",
        "type",
        "number",
        "step",
        "of uniform",
        "of matmul",
        "outside",
        "memory",
    )
    cells = [
        (
            *(row[key] for key in ("grid", "scheme", "tokens", "patches", "dtype")),
            f"{row['num_tokens']:.0f}",
            f"{row['step_seconds']:.3f} s",
            f"{row['over_uniform']:.3f}",
            f"{row['matmul_share']:.2f}",
            f"{row['outside_blocks_share']:.3f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB",
        )
        for row in rows
    ]
    return text_table(head, cells, num_text=5)
