"""Plan a run before it costs node hours: tokens, memory of a rank by part, communication, step time, days.

    python tools/plan.py --config RUN.yaml --deepspeed_config ds_configs/X.json --nodes 92 --machine frontier [--search]

Tokens are counted on windows of the run's data. Where that is not there yet, --grid and --refined say what to assume;
--grid may be given once for each data set, in their order. A machine is one of matey/planning/machines/ or a YAML file of
yours. The exit code is 1 if the run does not fit.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags, load_config, load_deepspeed_config
from matey.planning.at_hand import check_can_be_planned
from matey.planning.machine import load_machine
from matey.process.entry_point import entry_point


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
    size.add_argument("--nodes", type=flags.whole(1), help="number of nodes, with a rank on each GPU (GCD, core)")
    size.add_argument("--ranks", type=flags.whole(1), help="number of ranks, in place of --nodes")
    top.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    top.add_argument("--search", action="store_true", help="rank the other ways to run the same global batch")
    top.add_argument("--top", type=flags.whole(1), default=10, help="number of them to print (10)")
    top.add_argument(
        "--grid", action="append", type=grid, help="cells y,x or z,y,x of data that is not there yet (128,128)"
    )
    top.add_argument(
        "--refined",
        type=flags.number(0, 1),
        default=0.2,
        help="share of its patches that the rule threshold splits (0.2)",
    )
    top.add_argument(
        "--read_rate",
        type=flags.number(1e-6, 1e9),
        help="MB of float32 a second that one process reads (as read here, if there is data)",
    )
    top.add_argument("--fields", type=flags.whole(1), default=4, help="number of fields of its systems (4)")
    return top


def grid(text: str) -> tuple[int, int, int]:
    """Read ``y,x`` or ``z,y,x``."""
    *z, y, x = flags.wholes(1, counts=(2, 3))(text)
    return z[0] if z else 1, y, x


if __name__ == "__main__":
    sys.exit(main())
