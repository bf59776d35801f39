"""Converts or describes a checkpoint, for tools/convert_checkpoint.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from matey.checkpoints.convert import convert, describe
from matey.checkpoints.source import find_checkpoint, find_damage


def main(args: argparse.Namespace) -> int:
    """Convert or describe; return the exit code of the tool."""
    if args.describe:
        return tell(args.checkpoint)
    source, run = find_checkpoint(args.checkpoint)
    print(convert(source, run, args.to, args.out, average=args.ema, dtype=args.dtype))
    return 0


def tell(checkpoint: Path) -> int:
    """Print the contents of a checkpoint, then its faults."""
    source, run = find_checkpoint(checkpoint)
    print(describe(source, run))
    damage = find_damage(source, tqdm(source.files(), desc="Checking", unit="file", leave=False))
    for sentence in damage:
        print(f"corrupt: {sentence}")
    print("" if damage else f"All {len(source.files())} files are whole and of step {source.step}.")
    return 1 if damage else 0
