"""Write data of any kind that is read here in The Well's layout: `python tools/convert_data.py SRC --to the_well --out DIR`.

SRC is a file, a folder, a glob, or the YAML that describes such, and holds one system. DIR gets data/train, data/valid,
data/test and stats.yaml, which The Well's own reader opens. Splits that the files state are kept; other data is
split by --split and --seed, as a run splits it.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags
from matey.process.entry_point import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SRC", help="data: a file, a folder or a glob")
    parser.add_argument("--to", choices=("the_well",), default="the_well", help="layout to write (the_well)")
    parser.add_argument("--out", type=flags.path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--split", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar="SHARE", help="shares (0.8 0.1 0.1)"
    )
    parser.add_argument("--seed", type=flags.whole(0), default=0, help="seed of the split (0)")
    args = parser.parse_args()
    from matey.commands.convert_data import main as convert_data

    return convert_data(args)


if __name__ == "__main__":
    sys.exit(main())
