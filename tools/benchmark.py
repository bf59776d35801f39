"""Measure what a training step costs: seconds, memory, share of the machine's matrix-product rate.

    matey benchmark step --tokens mix --patches 32,8 --refine 0.15 --grid 256,256 --batch 1
    matey benchmark sequence --ranks 1,2,4 --grid 256,256 --tokens mix --out runs/sequence

One step is forward, backward and AdamW on smooth fields with a few sharp spots. `step` prints one line of JSON, `sequence` a
table, beside one process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import TokenSet, flags
from matey.process.start import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    set_patches(args)
    from matey.commands.benchmark import main as benchmark

    return benchmark(args)


def set_patches(args: argparse.Namespace) -> None:
    """Set the default patches of the token set if none are given."""
    finest = 8 if len(args.grid) == 2 else 16
    args.patches = args.patches or ((finest,) if args.tokens == "uniform" else (32, finest))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="WHAT", dest="what")
    spread = what.add_parser("sequence", help="benchmark of a training step on sequence groups of several sizes")
    add = spread.add_argument
    add("--ranks", type=flags.wholes(1, 1024), default=(1, 2, 4), help="sizes of the group, beside 1 (1,2,4)")
    add("--out", type=flags.path, default=Path("runs/sequence"), help="folder of the table (runs/sequence)")
    add_case(spread, grid=(256, 256), batch=1, repeat=3)
    step = what.add_parser("step", help="benchmark of a training step")
    add = step.add_argument
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of weights and tokens (float32)")
    add("--device", default="cpu", help="device, cpu or cuda (cpu)")
    add_case(step, grid=(128, 128), batch=2, repeat=10)
    return top


def add_case(parser: argparse.ArgumentParser, grid: tuple[int, ...], batch: int, repeat: int) -> None:
    """Add the flags that describe a case, with these defaults."""
    add = parser.add_argument
    add("--model", default="Ti", help="micro, mini, Ti, S or B (Ti)")
    add("--scheme", default="vit", help="vit, svit or avit (vit)")
    add("--tokens", choices=get_args(TokenSet), default="uniform", help="token set (uniform)")
    add("--patches", type=flags.wholes(1, 4096), help="cells along an axis, coarse to fine (8 or 32,8; of z,y,x 16)")
    add("--refine", type=flags.number(0, 1), default=0.25, help="share of the patches that is split (0.25)")
    add("--grid", type=flags.wholes(1, 65_536, (2, 3)), default=grid, help=f"cells y,x or z,y,x ({grid})")
    add("--frames", type=flags.whole(1, 1024), default=4, help="frames of history (4)")
    add("--network", choices=("matey", "paper", "cells"), default="matey", help="model.network of a run (matey)")
    add("--fields", type=flags.whole(1, 10_000), default=4, help="number of fields (4)")
    add("--batch", type=flags.whole(1, 100_000), default=batch, help=f"number of samples ({batch})")
    add("--repeat", type=flags.whole(1), default=repeat, help=f"steps that are timed after a warm-up ({repeat})")


if __name__ == "__main__":
    sys.exit(main())
