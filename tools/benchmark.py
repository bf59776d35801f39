"""Measure what a training step costs (seconds, memory, share of the machine's matrix-product rate), and how fast data is read.

    python tools/benchmark.py step --tokens mix --patches 32,8 --refine 0.15 --grid 256,256 --batch 1
    python tools/benchmark.py step --sweep --out runs/bench
    python tools/benchmark.py data
    python tools/benchmark.py sequence --ranks 1,2,4 --grid 256,256 --tokens mix --out runs/sequence

One step is forward, backward and AdamW on smooth fields with a few sharp spots. The first prints one line of JSON; the sweep
times every scheme on every token set, a larger grid and bfloat16, each beside the uniform grid in turns, and writes step.csv
and step.png. `data` simulates two short trajectories of each system in a temporary folder, and prints how many windows a
second are read of each beside those that a model trains on: a table, then a line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from matey.config import flags
from matey.data import open_dataset
from matey.evaluate.reading_speed import ReadingSpeed, reading_speed, training_speed
from matey.evaluate.sequence_speed import LENGTHS, longer, longest, run_point, sequence_figure, summarise
from matey.evaluate.speed import measure
from matey.evaluate.speed_cases import Case, cases_of_sweep
from matey.scaling.exchanges import RECOMPUTED
from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS

PATCHES = {"uniform": (8,), "mix": (32, 8), "mul": (32, 8)}  # by token set, unless others are given
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    torch.set_num_threads(getattr(args, "threads", 1))
    try:
        if args.what == "data":
            data(args)
        elif args.what == "sequence":
            sequence(args)
        elif args.sweep:
            sweep(args.out, args.repeat)
        else:
            (speed,) = measure([case_of(args)], args.repeat)
            print(json.dumps(speed.as_row()))
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot write to {args.out} ({error.strerror}); choose another --out.", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="WHAT", dest="what")
    add_data_parser(what)
    spread = what.add_parser("sequence", help="benchmark of a training step on sequence groups of several sizes")
    spread.add_argument(
        "--ranks", type=flags.wholes(1, 1024), default=(1, 2, 4), help="sizes of the group; 1 comes first (1,2,4)"
    )
    add_case(spread, grid=(256, 256), batch=1, repeat=3)
    spread.add_argument(
        "--out", type=flags.path, default=Path("runs/sequence"), help="folder of the table (runs/sequence)"
    )
    step = what.add_parser("step", help="benchmark of a training step")
    add_case(step, grid=(128, 128), batch=2, repeat=10)
    step.add_argument(
        "--dtype", choices=PRECISIONS, default="float32", help="precision of weights and tokens (float32)"
    )
    step.add_argument("--device", default="cpu", help="device, cpu or cuda (cpu)")
    step.add_argument("--threads", type=flags.threads, default=1, help="CPU threads (1)")
    step.add_argument("--sweep", action="store_true", help="time the table of cases instead of one")
    step.add_argument(
        "--out", type=flags.path, default=Path("runs/bench"), help="folder of the sweep's table (runs/bench)"
    )
    return top


def add_data_parser(what: argparse._SubParsersAction) -> None:
    """Add the parser of ``data``."""
    read = what.add_parser("data", help="benchmark of reading each system, beside training")
    read.add_argument("--model", default="Ti", help="micro, Ti, S or B (Ti)")
    read.add_argument(
        "--resolution", type=flags.whole(32, 4096), default=128, help="cells along the longest axis (128)"
    )
    read.add_argument("--workers", type=flags.wholes(0, 1024), default=(0, 1, 2), help="processes that read (0,1,2)")
    read.add_argument(
        "--threads", type=flags.threads, default=torch.get_num_threads(), help="CPU threads of the model (%(default)s)"
    )
    read.add_argument("--device", default="cpu", help="device of the model: cpu or cuda (cpu)")
    read.add_argument("--repeat", type=flags.whole(1), default=10, help="steps of the model that are timed (10)")
    read.add_argument(
        "--seconds",
        type=flags.number(0.01, 3600),
        default=1.0,
        help="seconds of reading for each number of workers (1)",
    )


def data(args: argparse.Namespace) -> None:
    """Print how fast each system is read beside the speed of training."""
    grid = (args.resolution, args.resolution)
    # The paper's patches, few of them refined: a step with fewer tokens takes in more windows.
    case = Case(args.model, tokens="mix", patches=(32, 8), refine=0.15, grid=grid, device=args.device)
    trained = training_speed(case, args.repeat)
    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        for system in (bar := tqdm(SYSTEMS, desc="data", unit=" systems", disable=None)):
            bar.set_postfix_str(system)
            ensemble = SYSTEMS[system].ensemble(num_trajectories=2, resolution=args.resolution, num_frames=8)
            make(Path(folder) / system, ensemble)
            speeds.append(reading_speed(open_dataset(Path(folder) / system), args.workers, seconds=args.seconds))
    print(data_text(speeds, trained, args))
    row = {"model": args.model, "trained_windows_per_second": trained, "read": [asdict(speed) for speed in speeds]}
    print(json.dumps(row))


def data_text(speeds: list[ReadingSpeed], trained: float, args: argparse.Namespace) -> str:
    """Lay the windows per second out as a plain table."""
    head = f"{'windows per second':20}{'grid':>10}{'fields':>8}" + "".join(
        f"{f'{n} workers':>12}" for n in args.workers
    )
    head += f"{'over training':>15}"
    lines = [head, "-" * len(head)]
    for speed in speeds:
        rates = speed.windows_per_second.values()
        size = f"{speed.grid[1]}x{speed.grid[2]}"
        lines.append(
            f"{speed.system:20}{size:>10}{speed.num_fields:8}"
            + "".join(f"{rate:12.0f}" for rate in rates)
            + f"{rate_of_most(speed) / trained:14.0f}x"
        )
    size = f"{args.resolution}x{args.resolution}"
    lines.append(
        f"{args.model} trains on {trained:.1f} windows of {size} a second; {max(args.workers)} workers are compared."
    )
    return "\n".join(lines)


def rate_of_most(speed: ReadingSpeed) -> float:
    """Return the windows per second that the largest number of workers reads."""
    return speed.windows_per_second[max(speed.windows_per_second)]


def add_case(parser: argparse.ArgumentParser, grid: tuple[int, ...], batch: int, repeat: int) -> None:
    """Add what describes a case, with these defaults."""
    parser.add_argument("--model", default="Ti", help="micro, Ti, S or B (Ti)")
    parser.add_argument("--scheme", default="vit", help="vit, svit or avit (vit)")
    parser.add_argument("--tokens", choices=PATCHES, default="uniform", help="token set (uniform)")
    parser.add_argument(
        "--patches",
        type=flags.wholes(1, 4096),
        help="cells along each axis, coarse to fine (uniform: 8; mix and mul: 32,8)",
    )
    parser.add_argument(
        "--refine", type=flags.number(0, 1), default=0.25, help="share of the patches that is split (0.25)"
    )
    parser.add_argument(
        "--grid", type=flags.wholes(1, 65_536, (2, 3)), default=grid, help=f"cells y,x or z,y,x ({grid})"
    )
    parser.add_argument("--frames", type=flags.whole(1, 1024), default=4, help="frames of history (4)")
    parser.add_argument("--patch_frames", type=flags.whole(1, 1024), default=1, help="frames of a patch (1)")
    parser.add_argument(
        "--checkpoint_blocks",
        choices=RECOMPUTED,
        default="none",
        help="blocks that are computed again, as parallel.checkpoint_blocks of a run (none)",
    )
    parser.add_argument("--fields", type=flags.whole(1, 10_000), default=4, help="number of fields (4)")
    parser.add_argument("--batch", type=flags.whole(1, 100_000), default=batch, help=f"number of samples ({batch})")
    parser.add_argument(
        "--repeat", type=flags.whole(1), default=repeat, help=f"steps that are timed after a warm-up ({repeat})"
    )


def sequence(args: argparse.Namespace) -> None:
    """Measure every size of the group; write and print the table."""
    sizes = sorted(set(args.ranks))
    if sizes[0] != 1:
        raise ValueError(
            f"All sizes are compared with one process: --ranks must begin with 1, got {','.join(map(str, sizes))}."
        )
    case = case_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for ranks in tqdm(sizes, desc="sequence", unit=" sizes", disable=None):
        point = run_point(case, ranks, args.repeat)
        if not rows:
            base = point
        limit = base["activation_bytes"][0]
        around = [run_point(longer(case, ranks * factor), ranks) for factor in LENGTHS]
        rows.append(summarise(base, point, longest(around, limit)))
    write_csv(args.out / "sequence.csv", rows)
    sequence_figure(rows).savefig(args.out / "sequence.png", dpi=150)
    for row in rows:
        print(json.dumps(row))
    print(f"Table: {args.out / 'sequence.csv'}   plot: {args.out / 'sequence.png'}")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the same columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def case_of(args: argparse.Namespace) -> Case:
    """Return the case that the command line describes.

    Raises:
        ValueError: there is nothing to split in a set of several levels.
    """
    patches = args.patches or PATCHES[args.tokens]
    if args.tokens != "uniform" and len(patches) < 2:
        raise ValueError(
            f"--tokens {args.tokens} splits patches, got --patches {patches[0]} alone: give two levels, as 32,8."
        )
    names = {field.name for field in fields(Case)} & set(vars(args)) - {"patches", "dtype"}
    dtype = PRECISIONS[getattr(args, "dtype", "float32")]
    return Case(**{name: getattr(args, name) for name in names}, patches=patches, dtype=dtype)


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
    write_csv(folder / "step.csv", rows)
    figure(rows).savefig(folder / "step.png", dpi=150)
    print(text(rows))
    print(f"\nTable: {folder / 'step.csv'}   plot: {folder / 'step.png'}")


def name_of(row: dict[str, Any]) -> str:
    """Return what sets a row apart from others of its grid."""
    precision = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"{row['scheme']} {row['tokens']} {row['patches'].replace(',', ' to ')}{precision}"


def text(rows: list[dict[str, Any]]) -> str:
    """Lay the most telling columns out as a plain table."""
    head = f"{'grid':10}{'case':26}{'tokens':>8}{'step':>10}{'of uniform':>12}{'of matmul':>11}{'outside':>9}{'memory':>10}"
    lines = [head, "-" * len(head)]
    for row in rows:
        lines.append(
            f"{row['grid'].replace(',', 'x'):10}{name_of(row):26}{row['num_tokens']:8.0f}{row['step_seconds']:8.3f} s"
            f"{row['over_uniform']:12.3f}{row['matmul_share']:11.2f}{row['outside_blocks_share']:9.3f}"
            f"{row['peak_memory_bytes'] / 2**20:6.0f} MiB"
        )
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw the step time of each case over that of its uniform grid, beside the share of tokens."""
    adaptive = [row for row in rows if row["tokens"] != "uniform"]
    chart = Figure(figsize=(9, 0.42 * len(adaptive) + 1.4), layout="constrained")
    axes = chart.subplots()
    places = range(len(adaptive))
    uniform = {(row["grid"], row["batch"]): row["num_tokens"] for row in rows if row["tokens"] == "uniform"}
    axes.barh(places, [row["over_uniform"] for row in adaptive], color="#4c78a8", label="step time")
    shares = [row["num_tokens"] / uniform[row["grid"], row["batch"]] for row in adaptive]
    axes.plot(shares, places, "o", color="#f58518", label="tokens")
    axes.set_yticks(places, [f"{name_of(row)}, {row['grid'].replace(',', 'x')}" for row in adaptive])
    axes.invert_yaxis()
    axes.set_xlabel("share of the uniform grid of the finest patches")
    axes.legend()
    return chart


if __name__ == "__main__":
    sys.exit(main())
