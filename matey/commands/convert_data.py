"""Writes data in another layout, for tools/convert_data.py; needs no PyTorch."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from matey.data.registry import open_dataset
from matey.data.splits import split_set
from matey.data.to_the_well import write_the_well
from matey.data.trajectories import PARTS
from matey.mistakes import writing


def main(args: argparse.Namespace) -> int:
    """Convert; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    data = open_dataset(args.source)
    split = split_set(data, args.split, args.seed)
    counts = {part: len(getattr(split, part)) for part in PARTS}
    with (
        writing(args.out),
        tqdm(total=sum(counts.values()), desc=data.system, unit=" trajectories", disable=None) as bar,
    ):
        notes = write_the_well(data, split, args.out, bar.update)
    for note in notes:
        print(note)
    print(
        f"Wrote {args.out}: {', '.join(f'{number} {part}' for part, number in counts.items())} trajectories of {data.system}."
    )
    print(f"WellDataset(path={str(args.out)!r}, well_split_name='train') opens it, and so does MATEY.")
    return 0
