"""Watch runs while they train, as curves in the terminal.

    python tools/watch.py RUN [RUN ...] [--html page.html]

RUN is a run's folder, such as runs/demo. Only its metrics.jsonl and config.yaml are read: the run is not touched, and may train
on another machine that shares the folder. Ends with the last step, or with ctrl-C.
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
    parser.add_argument(
        "--html", type=flags.path, metavar="FILE", help="page to write as well, which loads itself anew"
    )
    parser.add_argument("--every", type=flags.whole(1, 3600), default=5, help="seconds between looks (5)")
    args = parser.parse_args()
    from matey.commands.follow import watch

    return watch(args.runs, args.html, args.every)


if __name__ == "__main__":
    sys.exit(main())
