"""Evaluate a trained model: `python launch/evaluate.py --checkpoint RUN_OR_MODEL --out DIR [--data PATH...]`.

Forecasts at single leads, and rollouts over the model's own predictions: in steps of one snapshot ("rollout") and, from the
same windows, in steps of the longest lead that the model was trained on ("rollout by N", see --rollout-lead). Both, with
persistence and extrapolation beside them, are in the table, in metrics.json and in report.html. A rollout that leaves all
bounds is reported as diverged.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from matey.config import ConfigError, flags
from matey.data import DataError, open_dataset
from matey.evaluate.about import describe
from matey.evaluate.evaluation import Protocol, evaluate, plan_tasks
from matey.evaluate.held_out import HeldOut, hold_out
from matey.evaluate.records import write_records
from matey.evaluate.report import write_report
from matey.evaluate.summary import summary_text
from matey.evaluate.trained import CheckpointError, Trained, load_trained


class FlagError(ValueError):
    """A flag whose value cannot be used."""


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parse_arguments()
    # Hugging Face's bars and its own report on weights; what is wrong with them is said in our words.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        run(args)
    except (FlagError, CheckpointError, ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=flags.path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="files, folders or globs; by default those of the run"
    )
    parser.add_argument(
        "--out", required=True, type=flags.path, metavar="DIR", help="folder for metrics.json and report.html"
    )
    parser.add_argument("--leads", default="1,5", help="lead times in snapshots, each predicted at once (1,5)")
    parser.add_argument(
        "--rollout",
        type=int,
        default=10,
        metavar="N",
        help="forecast horizon of the rollout in snapshots; 0 for none (10)",
    )
    parser.add_argument(
        "--rollout-lead",
        default="auto",
        metavar="N|auto",
        help="step of a second rollout in snapshots; 1 for none; auto: the longest lead trained on, if that is known, and no "
        "more than --rollout (auto)",
    )
    parser.add_argument("--max-windows", type=int, default=200, metavar="N", help="windows per system and lead (200)")
    parser.add_argument(
        "--split",
        choices=("all", "train", "valid", "test"),
        help="trajectories to take, as the run split them; by default all of --data, else test",
    )
    parser.add_argument("--history", type=int, metavar="T", help="frames of history; by default those of the training")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="samples predicted together (16)")
    parser.add_argument("--device", default="auto", help="device: auto, cpu, cuda or cuda:1 (auto)")
    parser.add_argument("--threads", type=flags.threads, help="CPU threads; by default PyTorch's choice")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Evaluate as the command line says, write both files and print the table."""
    protocol = Protocol(
        parse_leads(args.leads),
        at_least(0, "--rollout", args.rollout),
        at_least(1, "--max-windows", args.max_windows),
        at_least(1, "--batch", args.batch),
    )
    rollout_lead = parse_rollout_lead(args.rollout_lead, args.rollout)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = find_device(args.device)
    trained = load_trained(args.checkpoint)
    if trained.note:
        print(trained.note)
    longest = max(1, min(trained.lead_max or 1, args.rollout))
    protocol = replace(protocol, rollout_lead=rollout_lead or longest)
    data = select_data(args, trained)
    model = trained.model.to(device)
    tasks = plan_tasks(model, data, protocol)
    with writing_to(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(task.num_forecasts for task in tasks), desc="evaluate", unit=" forecasts") as bar:
        evaluation = evaluate(model, data, protocol, tasks, bar.update)
    date, command = f"{datetime.now():%Y-%m-%d %H:%M}", shlex.join(["python", *sys.argv])
    with writing_to(args.out):
        write_records(evaluation.records, args.out / "metrics.json")
        write_report(args.out / "report.html", evaluation, describe(trained, data, protocol, date, command))
    for note in data.notes:
        print(note)
    print(f"\n{summary_text(evaluation)}\n\nReport: {args.out / 'report.html'}")


def parse_leads(text: str) -> tuple[int, ...]:
    """Read ``1,5`` as lead times."""
    leads = text.split(",")
    if not all(lead.strip().isdecimal() and len(lead) < 10 and int(lead) > 0 for lead in leads):
        raise FlagError(f"--leads takes whole numbers of snapshots from 1 on, such as 1,5; got {text[:80]!r}.")
    return tuple(sorted({int(lead) for lead in leads}))


def parse_rollout_lead(text: str, rollout: int) -> int | None:
    """Read the snapshots of a rollout's steps; None leaves them to the model."""
    if text == "auto":
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= max(1, rollout)):
        raise FlagError(
            f"--rollout-lead takes a number of snapshots from 1 to the {rollout} of --rollout, or auto; got {text[:80]!r}."
        )
    return int(text)


def at_least(least: int, flag: str, value: int) -> int:
    """Return a number of the command line if it is not too small."""
    if value < least:
        raise FlagError(f"{flag} must be {least} or more, got {value}.")
    return value


def find_device(name: str) -> torch.device:
    """Return the device, the first GPU if there is one for ``auto``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FlagError(f"--device {name} is no device; use auto, cpu or cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise FlagError(f"--device {name} is not supported; use auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FlagError(f"--device {name} is not there: PyTorch sees {torch.cuda.device_count()} GPUs; use cpu.")
    return device


def select_data(args: argparse.Namespace, trained: Trained) -> HeldOut:
    """Open the data of the command line or of the run, and select the trajectories."""
    if not args.data and trained.run is None:
        raise FlagError(f"{args.checkpoint} is a model without a run, which names no data; give some with --data.")
    paths = args.data or [data.path for data in trained.run.data.sets]
    num_frames = trained.num_frames if args.history is None else at_least(1, "--history", args.history)
    if num_frames is None:
        raise FlagError(f"{args.checkpoint} does not say how many frames of history it takes; give --history.")
    part = args.split or ("all" if args.data else "test")
    sets = [open_dataset(path) for path in paths]
    return hold_out(
        sets, part, num_frames, trained.run and trained.run.data, trained.split, are_of_the_run=not args.data
    )


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Say in a sentence why the results cannot be written."""
    try:
        yield
    except OSError as error:
        raise FlagError(f"Cannot write to {folder}: {error.strerror}; make room or choose another --out.") from None


if __name__ == "__main__":
    sys.exit(main())
