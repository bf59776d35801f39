"""Writes checkpoints and data in other forms."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from matey.mistakes import writing


def convert_checkpoint(args: argparse.Namespace) -> int:
    """Convert a checkpoint, or print its contents, then its faults; return 1 for a corrupt one."""
    from matey.checkpoints.convert import convert, describe
    from matey.checkpoints.source import find_checkpoint, find_damage

    source, run = find_checkpoint(args.checkpoint)
    if not args.describe:
        print(convert(source, run, args.to, args.out, average=args.ema, dtype=args.dtype))
        return 0
    print(describe(source, run))
    damage = find_damage(source, tqdm(source.files(), desc="Checking", unit="file", leave=False))
    for sentence in damage:
        print(f"corrupt: {sentence}")
    print("" if damage else f"All {len(source.files())} files are whole and of step {source.step}.")
    return 1 if damage else 0


def convert_data(args: argparse.Namespace) -> int:
    """Write data in The Well's layout, which needs no PyTorch; return 0."""
    from matey.data.registry import open_dataset
    from matey.data.splits import split_set
    from matey.data.to_the_well import write_the_well
    from matey.data.trajectories import PARTS

    data = open_dataset(args.source)
    split = split_set(data, args.split, args.seed)
    counts = {part: len(getattr(split, part)) for part in PARTS}
    total = sum(counts.values())
    with writing(args.out), tqdm(total=total, desc=data.system, unit=" trajectories", disable=None) as bar:
        notes = write_the_well(data, split, args.out, bar.update)
    for note in notes:
        print(note)
    parts = ", ".join(f"{number} {part}" for part, number in counts.items())
    print(f"Wrote {args.out}: {parts} trajectories of {data.system}.")
    print(f"WellDataset(path={str(args.out)!r}, well_split_name='train') opens it, and so does MATEY.")
    return 0
