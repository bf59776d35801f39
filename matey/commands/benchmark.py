"""Measures the cost of a training step, for tools/benchmark.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from tqdm import tqdm

from matey.benchmark.step import Case, Point, longer, longest, measure, run_point, summarise
from matey.mistakes import Mistake, writing
from matey.process.start import keep_freed_memory
from matey.studies.engine import write_table
from matey.text_table import text_table


def main(args: argparse.Namespace) -> int:
    """Run the measurement of the command line; return 0 if all went well."""
    torch.set_num_threads(1)
    if args.what == "step" and args.device == "cpu":
        keep_freed_memory()  # as training does
    try:
        if args.what == "sequence":
            tabulate(args.out / "sequence.csv", sequence(args))
        else:
            (speed,) = measure([case_of(args)], args.repeat)
            print(json.dumps(speed.as_row()))
    except (ValueError, RuntimeError) as error:
        raise Mistake(str(error)) from None
    return 0


def tabulate(file: Path, points: Iterator[Point]) -> None:
    """Measure the points, write their table, and print it."""
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = list(tqdm(points, desc=file.stem, unit=" points", disable=None))
        write_table(file, rows)
    cells = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(f"{text_table([*rows[0]], cells, num_text=0)}\n\nTable: {file}")


def sequence(args: argparse.Namespace) -> Iterator[Point]:
    """Measure every size of the group, beside one process."""
    case = case_of(args)
    base = run_point(case, 1, args.repeat)
    for ranks in sorted(set(args.ranks)):
        point, most = base, base["num_tokens"]
        if ranks > 1:  # a sample that takes about as much memory per rank as the case in one process
            point = run_point(case, ranks, args.repeat)
            points = [point, run_point(longer(case, ranks), ranks, before=case)]
            most = longest(points, base["activation_bytes"][0])
        yield summarise(base, point, most)


def case_of(args: argparse.Namespace) -> Case:
    """Return the case that the command line describes."""
    names = {field.name for field in fields(Case)} & set(vars(args)) - {"dtype"}
    dtype = getattr(torch, getattr(args, "dtype", "float32"))
    return Case(**{name: getattr(args, name) for name in names}, dtype=dtype)
