"""Plan a run before it costs node hours: tokens, memory of a rank by part, communication, step time, days.

    python tools/plan.py --config RUN.yaml --deepspeed_config ds_configs/X.json --nodes 92 --machine frontier [--search]

Tokens are counted on windows of the run's data. Where that is not there yet, --grid and --refined say what to assume;
--grid may be given once for each data set, in their order. A machine is one of matey/planning/machines/ or a YAML file of
yours. The exit code is 1 if the run does not fit.
"""

from __future__ import annotations

import argparse
import sys

from matey.config import load_config, load_deepspeed_config
from matey.entry_point import entry_point
from matey.planning.at_hand import check_can_be_planned
from matey.planning.machine import load_machine


@entry_point
def main() -> int:
    """Run from the command line: 0 if the run fits, 1 if not, 2 for a mistake that the printed sentence explains."""
    args = parser().parse_args()
    run = load_config(args.config, args.set)
    deepspeed_config = load_deepspeed_config(args.deepspeed_config)
    machine = load_machine(args.machine)
    check_can_be_planned(run, is_assumed=args.grid is not None)
    from matey.commands.plan import main as plan

    return plan(args, run, deepspeed_config, machine)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--config", required=True, help="YAML of the run, see launch/runs/")
    top.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    top.add_argument("--machine", required=True, help="frontier, dgx-h100, cpu, or a YAML file")
    size = top.add_mutually_exclusive_group(required=True)
    size.add_argument("--nodes", type=positive, help="number of nodes, with a rank on each GPU (GCD, core)")
    size.add_argument("--ranks", type=positive, help="number of ranks, in place of --nodes")
    top.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    top.add_argument("--search", action="store_true", help="rank the other ways to run the same global batch")
    top.add_argument("--top", type=positive, default=10, help="number of them to print (10)")
    top.add_argument(
        "--grid", action="append", type=grid, help="cells y,x or z,y,x of data that is not there yet (128,128)"
    )
    top.add_argument(
        "--refined", type=share, default=0.2, help="share of its patches that the rule threshold splits (0.2)"
    )
    top.add_argument(
        "--read_rate",
        type=above_zero,
        help="MB of float32 a second that one process reads (as read here, if there is data)",
    )
    top.add_argument("--fields", type=positive, default=4, help="number of fields of its systems (4)")
    return top


def grid(text: str) -> tuple[int, int, int]:
    """Read ``y,x`` or ``z,y,x``."""
    cells = [int(part) for part in text.split(",")]
    if len(cells) not in (2, 3) or min(cells) < 1:
        raise argparse.ArgumentTypeError(f"a grid is y,x or z,y,x in cells, got {text}")
    z, y, x = [1, *cells] if len(cells) == 2 else cells
    return z, y, x


def positive(text: str) -> int:
    """Read an integer from 1 on."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, got {text}")
    return int(text)


def above_zero(text: str) -> float:
    """Read a number above 0."""
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"it must be above 0, got {text}")
    return float(text)


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"a share lies between 0 and 1, got {text}")
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
