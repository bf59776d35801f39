"""Evaluate a trained model: `python launch/evaluate.py --checkpoint RUN_OR_MODEL --out DIR [--data PATH...]`.

Forecasts at single leads, and rollouts over the model's own predictions: in steps of one snapshot ("rollout") and, from the
same windows, in steps of the longest lead that the model was trained on ("rollout by N", see --rollout-lead). Both, with
persistence and extrapolation beside them, are in the table, in metrics.json and in report.html. A rollout that leaves all
bounds is reported as diverged.

    python launch/evaluate.py --checkpoint runs/demo models/matey-micro --data data/new --out runs/compared

sets several models side by side in one table and one page, each on the same windows of the data of --data or of the first run.
Peers that `tools/reproduce.py peers` trained may be among them:

    python launch/evaluate.py --checkpoint runs/demo runs/paper/peers-laptop/points/unet-shallow_water-110-0 --out runs/compared

Several ranks, as deepspeed, torchrun, mpirun or srun start them, share out the forecasts, to the numbers of one. With
--share P groups of P ranks make each forecast together: none of them reads or holds more than its part of the fields.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.checkpoints.run_files import CONFIG, is_peer, is_run
from matey.config import flags, load_config
from matey.config.files import find_shipped
from matey.config.flags import FlagError, check_device
from matey.data.registry import check_found
from matey.process.entry_point import entry_point
from matey.process.launchers import looks_for_all


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parse_arguments()
    args.leads = tuple(sorted(set(args.leads)))
    if args.rollout_lead is not None and args.rollout_lead > max(1, args.rollout):
        raise FlagError(
            f"--rollout-lead takes a number of snapshots from 1 to the {args.rollout} of --rollout, or auto; got "
            f"{args.rollout_lead}."
        )
    check_device(args.device)
    if looks_for_all():
        check_found_data(args)
    from matey.commands.evaluate import main as evaluate

    return evaluate(args)


def check_found_data(args: argparse.Namespace) -> None:
    """Raise a mistake if a folder holds no model to evaluate, or there is no data to evaluate it on."""
    runs = [folder for folder in args.checkpoint if not is_peer(folder) and is_run(folder)]
    if args.data:
        for path in args.data:
            check_found(path)
    elif runs:
        for data in load_config(find_shipped(runs[0]) / CONFIG).data.sets:
            check_found(data.path, data.description)
    else:
        raise FlagError(f"{args.checkpoint[0]} is a model without a run, which names no data; give some with --data.")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = flags.RanksParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        type=flags.path,
        metavar="RUN_OR_MODEL",
        help="folder of a run, its model/, or a peer; of several, all are evaluated on the same windows and set side by side",
    )
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="files, folders or globs; by default those of the run"
    )
    parser.add_argument(
        "--out", required=True, type=flags.path, metavar="DIR", help="folder for metrics.json and report.html"
    )
    parser.add_argument(
        "--leads", type=flags.wholes(1), default=(1, 5), help="lead times in snapshots, each predicted at once (1,5)"
    )
    parser.add_argument(
        "--rollout",
        type=flags.whole(0),
        default=10,
        metavar="N",
        help="forecast horizon of the rollout in snapshots, which may lie beyond the truth; 0 for none (10)",
    )
    parser.add_argument(
        "--rollout-lead",
        type=or_auto,
        metavar="N|auto",
        help="step of a second rollout in snapshots; 1 for none; auto: the longest lead trained on, if that is known, and no "
        "more than --rollout (auto)",
    )
    parser.add_argument(
        "--conserve",
        action="store_true",
        help="keep what a system is known to conserve, such as mass, momentum and energy, in rollouts",
    )
    parser.add_argument(
        "--max-windows", type=flags.whole(1), default=200, metavar="N", help="windows per system and lead (200)"
    )
    parser.add_argument(
        "--split",
        choices=("all", "train", "valid", "test"),
        help="trajectories to take, as the run split them; by default all of --data, else test",
    )
    parser.add_argument(
        "--seen",
        choices=("refuse", "leave_out", "score"),
        default="refuse",
        help="trajectories of --data that the run trained on, known by their first frames: refused, left out, or scored all "
        "the same (%(default)s)",
    )
    parser.add_argument(
        "--every",
        type=flags.whole(1),
        default=1,
        metavar="N",
        help="score on every N-th frame of the data, which becomes a snapshot (1)",
    )
    parser.add_argument(
        "--means",
        type=flags.whole(1),
        default=1,
        metavar="N",
        help="score on means of N cells along each axis, a coarser grid (1)",
    )
    parser.add_argument(
        "--history", type=flags.whole(1, 1000), metavar="T", help="frames of history; by default those of the training"
    )
    parser.add_argument("--batch", type=flags.whole(1), default=16, metavar="N", help="samples predicted together (16)")
    parser.add_argument(
        "--share",
        type=flags.whole(1),
        default=1,
        metavar="P",
        help="ranks that make a forecast together, each with its part of the fields; errors without pictures (1)",
    )
    parser.add_argument("--device", default="auto", help="device of one process: auto, cpu, cuda or cuda:1 (auto)")
    parser.add_argument("--threads", type=flags.threads, help="CPU threads; by default PyTorch's choice")
    flags.take_local_rank(parser)
    return parser.parse_args()


def or_auto(text: str) -> int | None:
    """Read a number of snapshots; ``auto`` becomes None."""
    return None if text == "auto" else flags.whole(1)(text)


if __name__ == "__main__":
    sys.exit(main())
