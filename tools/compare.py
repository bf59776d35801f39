"""Compare runs: their curves and best validations beside each other.

    python tools/compare.py RUN RUN [RUN ...] [--html page.html]

RUN is a run's folder, such as runs/demo. launch/evaluate.py --checkpoint RUN RUN compares errors on what was held out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags
from matey.process.entry_point import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--html", type=flags.path, metavar="FILE", help="page to write as well")
    args = parser.parse_args()
    from matey.commands.follow import compare

    return compare(args.runs, args.html)


if __name__ == "__main__":
    sys.exit(main())
