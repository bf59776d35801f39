"""Draw a rollout beside the truth, with the mesh of tokens that the model chooses at each time.

    python tools/show_forecast.py --checkpoint RUN_OR_MODEL --data PATH --out forecast.png [--steps 20,40,60]

Upper row: the last frame that the model knows, and what it forecasts from there over its own predictions, each under the mesh
of the tokens into which the model cuts it. Lower row: the truth. Errors are the field's NRMSE.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.checkpoints.run_files import is_run
from matey.config import flags
from matey.data.registry import check_found
from matey.process.entry_point import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parse_arguments()
    is_run(args.checkpoint)  # raises if the folder holds no model
    check_found(args.data)
    from matey.commands.show_forecast import main as show_forecast

    return show_forecast(args)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=flags.path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/"
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="data set: a file, a folder or a glob")
    parser.add_argument(
        "--trajectory", type=flags.whole(0), default=0, help="number of the trajectory, counted from 0 (0)"
    )
    parser.add_argument("--start", type=flags.whole(0), default=0, help="first frame that the model is given (0)")
    parser.add_argument(
        "--steps",
        type=flags.wholes(1, 10_000, counts=(1, 2, 3, 4, 5)),
        default=(20, 40, 60),
        help="snapshots ahead that are drawn, up to five (20,40,60)",
    )
    parser.add_argument("--field", metavar="NAME", help="field that is drawn; by default the first")
    parser.add_argument("--history", type=flags.whole(1, 1000), metavar="T", help="frames given; by default as trained")
    parser.add_argument("--out", required=True, type=flags.path, metavar="PNG", help="picture to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
