"""Measure what a training step costs: seconds, memory, share of the machine's matrix-product rate.

    matey benchmark --tokens mix --patches 32,8 --refine 0.15 --grid 256,256 --batch 1

One step is forward, backward and AdamW on smooth fields with a few sharp spots. The result is one line of JSON.
"""

from __future__ import annotations

import argparse
import sys
from typing import get_args

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import TokenSet, flags
from matey.process.start import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    set_patches(args)
    from matey.benchmark.step import benchmark

    print(benchmark(args))
    return 0


def set_patches(args: argparse.Namespace) -> None:
    """Set the default patches of the token set if none are given."""
    finest = 8 if len(args.grid) == 2 else 16
    args.patches = args.patches or ((finest,) if args.tokens == "uniform" else (32, finest))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of weights and tokens (float32)")
    add("--device", default="cpu", help="device, cpu or cuda (cpu)")
    add("--model", default="Ti", help="micro, mini, Ti, S or B (Ti)")
    add("--scheme", default="vit", help="vit, svit or avit (vit)")
    add("--tokens", choices=get_args(TokenSet), default="uniform", help="token set (uniform)")
    add("--patches", type=flags.wholes(1, 4096), help="cells along an axis, coarse to fine (8 or 32,8; of z,y,x 16)")
    add("--refine", type=flags.number(0, 1), default=0.25, help="share of the patches that is split (0.25)")
    add("--grid", type=flags.wholes(1, 65_536, (2, 3)), default=(128, 128), help="cells y,x or z,y,x (128,128)")
    add("--frames", type=flags.whole(1, 1024), default=4, help="frames of history (4)")
    add("--network", choices=("matey", "paper", "cells"), default="matey", help="model.network of a run (matey)")
    add("--fields", type=flags.whole(1, 10_000), default=4, help="number of fields (4)")
    add("--batch", type=flags.whole(1, 100_000), default=2, help="number of samples (2)")
    add("--repeat", type=flags.whole(1), default=10, help="steps that are timed after a warm-up (10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
