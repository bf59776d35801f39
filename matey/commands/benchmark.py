"""Measures the cost of a training step and the speed of reading data, for tools/benchmark.py."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from matey.benchmark.blocking_points import blocking_points
from matey.benchmark.reading_speed import reading_speed
from matey.benchmark.sequence_speed import longer, longest, run_point, sequence_figure, summarise
from matey.benchmark.speed import measure
from matey.benchmark.speed_cases import Case, cases_of_sweep
from matey.data import open_dataset
from matey.mistakes import Mistake, writing
from matey.process.resources import keep_freed_memory
from matey.report.plots import COLOURS
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from matey.studies.engine import write_table
from matey.text_table import text_table


def main(args: argparse.Namespace) -> int:
    """Measure; return 0 if all went well."""
    threads = getattr(args, "threads", 1)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        run(args)
    except (ValueError, RuntimeError) as error:
        raise Mistake(str(error)) from None
    return 0


def run(args: argparse.Namespace) -> None:
    """Run the measurement of the command line."""
    if args.what in ("step", "data") and args.device == "cpu":
        keep_freed_memory()  # as training does
    if args.what == "data":
        data(args)
    elif args.what == "sequence":
        with writing(args.out):
            sequence(args)
    elif args.what == "blocking":
        for ranks in args.ranks:
            for point in blocking_points(args.model, ranks, args.stage):
                print(json.dumps(point))
    elif args.sweep:
        with writing(args.out):
            sweep(args.out, args.repeat)
    else:
        (speed,) = measure([case_of(args)], args.repeat)
        print(json.dumps(speed.as_row()))


def data(args: argparse.Namespace) -> None:
    """Print the speed of reading each system beside the speed of training."""
    grid = (args.resolution, args.resolution)
    # The paper's patches, few of them refined: with fewer tokens, a step trains on more windows per second.
    case = Case(args.model, tokens="mix", patches=(32, 8), refine=0.15, grid=grid, device=args.device)
    (speed,) = measure([case], args.repeat)
    trained, speeds = case.batch / speed.step_seconds, []
    with tempfile.TemporaryDirectory() as folder:
        for system in (bar := tqdm(SYSTEMS.own, desc="data", unit=" systems", disable=None)):
            bar.set_postfix_str(system)
            ensemble = SYSTEMS[system].ensemble(num_trajectories=2, resolution=args.resolution, num_frames=8)
            make(Path(folder) / system, ensemble)
            speeds.append(reading_speed(open_dataset(Path(folder) / system), args.workers, seconds=args.seconds))
    print(data_text(speeds, trained, args))
    row = {"model": args.model, "trained_windows_per_second": trained, "read": speeds}
    print(json.dumps(row))


def data_text(speeds: list[dict[str, Any]], trained: float, args: argparse.Namespace) -> str:
    """Format the windows per second as a plain table."""
    head = ("windows per second", "grid", "fields", *(f"{number} workers" for number in args.workers), "over training")
    rows = [
        (
            speed["system"],
            f"{speed['grid'][1]}x{speed['grid'][2]}",
            str(speed["num_fields"]),
            *(f"{rate:.0f}" for rate in speed["windows_per_second"].values()),
            f"{speed['windows_per_second'][max(args.workers)] / trained:.0f}x",
        )
        for speed in speeds
    ]
    size = f"{args.resolution}x{args.resolution}"
    note = f"{args.model} trains on {trained:.1f} windows of {size} a second; {max(args.workers)} workers are compared."
    return f"{text_table(head, rows)}\n{note}"


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
    sequence_figure(rows).savefig(args.out / "sequence.png", dpi=150)
    for row in rows:
        print(json.dumps(row))
    print(f"Table: {args.out / 'sequence.csv'}   plot: {args.out / 'sequence.png'}")


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
    figure(rows).savefig(folder / "step.png", dpi=150)
    print(text(rows))
    print(f"\nTable: {folder / 'step.csv'}   plot: {folder / 'step.png'}")


def name_of(row: dict[str, Any]) -> str:
    """Return the name that distinguishes a row from others of its grid."""
    precision = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"{row['scheme']} {row['tokens']} {row['patches'].replace(',', ' to ')}{precision}"


def text(rows: list[dict[str, Any]]) -> str:
    """Format the most important columns as a plain table."""
    head = ("grid", "case", "tokens", "step", "of uniform", "of matmul", "outside", "memory")
    cells = [
        (
            row["grid"].replace(",", "x"),
            name_of(row),
            f"{row['num_tokens']:.0f}",
            f"{row['step_seconds']:.3f} s",
            f"{row['over_uniform']:.3f}",
            f"{row['matmul_share']:.2f}",
            f"{row['outside_blocks_share']:.3f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB",
        )
        for row in rows
    ]
    return text_table(head, cells, num_text=2)


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw each case's step time divided by that of its uniform grid, beside the share of tokens."""
    adaptive = [row for row in rows if row["tokens"] != "uniform"]
    chart = Figure(figsize=(9, 0.42 * len(adaptive) + 1.4), layout="constrained")
    axes = chart.subplots()
    places = range(len(adaptive))
    uniform = {(row["grid"], row["batch"]): row["num_tokens"] for row in rows if row["tokens"] == "uniform"}
    axes.barh(places, [row["over_uniform"] for row in adaptive], color=COLOURS[0], label="step time")
    shares = [row["num_tokens"] / uniform[row["grid"], row["batch"]] for row in adaptive]
    axes.plot(shares, places, "o", color=COLOURS[1], label="tokens")
    axes.set_yticks(places, [f"{name_of(row)}, {row['grid'].replace(',', 'x')}" for row in adaptive])
    axes.invert_yaxis()
    axes.set_xlabel("share of the uniform grid of the finest patches")
    axes.legend()
    return chart
