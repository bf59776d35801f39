"""Say what is in data sets, and check that all of it can be used.

    python tools/inspect_data.py PATH... [--plot] [--out contact_sheet.png]

A PATH is a file, a folder or a glob, and may hold several systems; each is shown by itself. Every frame is read: a file
that cannot be read to its end, a value that is not finite, shapes that differ and times that do not increase are printed,
one line for each, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matey.config import flags


def main() -> int:
    """Run from the command line; 0 if all can be used, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="data: a file, a folder or a glob")
    parser.add_argument("--plot", action="store_true", help="draw frames of one trajectory of each system")
    parser.add_argument(
        "--out", type=flags.path, default=Path("contact_sheet.png"), help="PNG of --plot (contact_sheet.png)"
    )
    args = parser.parse_args()
    from matey.commands.inspect_data import main as inspect_data

    return inspect_data(args.paths, args.out if args.plot else None)


if __name__ == "__main__":
    sys.exit(main())
