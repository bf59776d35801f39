"""Converts or describes a checkpoint, for tools/convert_checkpoint.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matey.checkpoints.convert import ConversionError, convert
from matey.checkpoints.describe import describe, find_damage
from matey.checkpoints.find import find_checkpoint
from matey.checkpoints.newest import ShardError
from matey.config import ConfigError


def main(args: argparse.Namespace) -> int:
    """Convert or describe; return the exit code of the tool."""
    try:
        if args.describe:
            return tell(args.checkpoint)
        source, run = find_checkpoint(args.checkpoint)
        print(convert(source, run, args.to, args.out, average=args.ema, dtype=args.dtype))
    except (ShardError, ConversionError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def tell(checkpoint: Path) -> int:
    """Print what a checkpoint holds, then what is wrong with it."""
    source, run = find_checkpoint(checkpoint)
    print(describe(source, run))
    damage = find_damage(source)
    for sentence in damage:
        print(f"corrupt: {sentence}")
    print("" if damage else f"All {len(source.files())} files are whole and of step {source.step}.")
    return 1 if damage else 0
