"""Evaluates a trained model, for launch/evaluate.py."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from matey.checkpoints.run_files import RECORDS, REPORT
from matey.checkpoints.trained import Trained, load_trained
from matey.config.flags import FlagError, at_least, command_line
from matey.data import DataError, open_dataset
from matey.evaluate.beyond import go_beyond, longest_rollout
from matey.evaluate.comparison import Candidate, distinct_names, plan_comparison
from matey.evaluate.comparison import compare as compare_models
from matey.evaluate.evaluation import Protocol, evaluate, plan_tasks
from matey.evaluate.held_out import HeldOut, Part, hold_out, with_twins_noted, without_seen
from matey.evaluate.records import write_records
from matey.mistakes import writing
from matey.report.about import describe
from matey.report.comparison import STAR, comparison_text, write_comparison
from matey.report.evaluation import write_report
from matey.report.physics import beyond_text, physics_text
from matey.report.summary import READING, summary_text


def main(args: argparse.Namespace) -> int:
    """Evaluate; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    # Hugging Face's bars and its own report on weights; what is wrong with them is said in our words.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    compare(args) if len(args.checkpoint) > 1 else run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    """Evaluate as the command line says, write both files and print the table."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = find_device(args.device)
    trained = load(args.checkpoint[0])
    data = select_data(args, trained, args.checkpoint[0])
    num_true = num_true_of(args, data)
    longest = max(1, min(trained.lead_max or 1, num_true))
    rollout_lead = min(args.rollout_lead or longest, max(1, num_true))
    protocol = Protocol(args.leads, num_true, args.max_windows, args.batch, rollout_lead)
    model = trained.model.to(device)
    tasks = plan_tasks(model, data, protocol)
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(task.num_forecasts for task in tasks), desc="evaluate", unit=" forecasts") as bar:
        evaluation = evaluate(model, data, protocol, tasks, bar.update)
    if num_true < args.rollout:
        evaluation = replace(evaluation, beyond=go_beyond(model, data, num_true, args.rollout))
    date, command = f"{datetime.now():%Y-%m-%d %H:%M}", command_line()
    with writing(args.out):
        write_records(evaluation.records, args.out / RECORDS)
        write_report(args.out / REPORT, evaluation, describe(trained, data, protocol, date, command))
    for note in data.notes:
        print(note)
    beyond = "" if evaluation.beyond is None else beyond_text(["MATEY"], [evaluation.beyond])
    tables = [summary_text(evaluation), physics_text(["MATEY"], [evaluation.records]), beyond, READING]
    print("", *filter(None, tables), f"Report: {args.out / REPORT}", sep="\n\n")


def compare(args: argparse.Namespace) -> None:
    """Evaluate several models on the same windows; write a page of each, and one on all of them, and print their table."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = find_device(args.device)
    models = [load(folder) for folder in args.checkpoint]
    names = distinct_names(args.checkpoint)
    data = select_data(args, models[0], args.checkpoint[0])
    for name, trained in zip(names[1:], models[1:], strict=True):
        try:
            data = without_seen(data, trained.seen, trained.split, args.seen)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    candidates = [
        Candidate(name, trained.model.to(device), num_frames_of(args, trained, folder))
        for name, trained, folder in zip(names, models, args.checkpoint, strict=True)
    ]
    most_frames = max(candidate.num_frames for candidate in candidates)
    num_true = num_true_of(args, replace(data, num_frames=most_frames))
    longest = max(1, min(num_true, *(trained.lead_max or 1 for trained in models)))
    rollout_lead = min(args.rollout_lead or longest, max(1, num_true))
    protocol = Protocol(args.leads, num_true, args.max_windows, args.batch, rollout_lead)
    plans = plan_comparison(candidates, data, protocol)
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(t.num_forecasts for plan in plans for t in plan), desc="evaluate", unit=" forecasts") as bar:
        evaluations = compare_models(candidates, data, protocol, plans, bar.update)
    if num_true < args.rollout:
        evaluations = [
            replace(
                evaluation,
                beyond=go_beyond(
                    candidate.model,
                    replace(data, num_frames=candidate.num_frames),
                    num_true,
                    args.rollout,
                    start=most_frames - candidate.num_frames,
                ),
            )
            for candidate, evaluation in zip(candidates, evaluations, strict=True)
        ]
    date, command = f"{datetime.now():%Y-%m-%d %H:%M}", command_line()
    folders = [name.replace("/", "-") for name in names]
    with writing(args.out):
        for folder, trained, candidate, evaluation in zip(folders, models, candidates, evaluations, strict=True):
            (args.out / folder).mkdir(exist_ok=True)
            write_records(evaluation.records, args.out / folder / RECORDS)
            own = replace(data, num_frames=candidate.num_frames)
            about = describe(trained, own, protocol, date, command)
            write_report(args.out / folder / REPORT, evaluation, about)
        facts = [fact for fact in about.facts if fact[0] in ("date", "command", "data", "note", "device")]
        pages = [f"{folder}/{REPORT}" for folder in folders]
        write_comparison(args.out / REPORT, names, evaluations, facts, pages)
    for note in data.notes:
        print(note)
    print(f"\n{comparison_text(names, evaluations)}\n\n{STAR}\n\nReport: {args.out / REPORT}")


def load(folder: Path) -> Trained:
    """Load a run or a model, and say what could not be read in its folder."""
    trained = load_trained(folder)
    if trained.note:
        print(trained.note)
    return trained


def num_frames_of(args: argparse.Namespace, trained: Trained, folder: Path) -> int:
    """Return the number of history frames that a model is given."""
    num_frames = trained.num_frames if args.history is None else at_least(1, "--history", args.history)
    if num_frames is None:
        raise FlagError(f"{folder} does not say how many frames of history it takes; give --history.")
    return num_frames


def num_true_of(args: argparse.Namespace, data: HeldOut) -> int:
    """Return how many snapshots of the rollouts have a truth; where there is none at all, the plan refuses."""
    return min(args.rollout, longest_rollout(data)) or args.rollout


def find_device(name: str) -> torch.device:
    """Return the device, the first GPU if there is one for ``auto``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FlagError(f"--device {name} is not there: PyTorch sees {torch.cuda.device_count()} GPUs; use cpu.")
    return device


def select_data(args: argparse.Namespace, trained: Trained, folder: Path) -> HeldOut:
    """Open the data of the command line or of the run, and select the trajectories."""
    of_the_run = None if trained.run is None else trained.run.data
    if args.data:
        sets = [open_dataset(path) for path in args.data]
    elif of_the_run is not None:
        sets = [open_dataset(data.path, data.description) for data in of_the_run.sets]
    else:
        raise FlagError(f"{folder} is a model without a run, which names no data; give some with --data.")
    num_frames = num_frames_of(args, trained, folder)
    part: Part = args.split or ("all" if args.data else "test")
    held_out = hold_out(sets, part, num_frames, of_the_run, trained.split, are_of_the_run=not args.data)
    if not args.data:
        return with_twins_noted(held_out, trained.seen)
    return without_seen(held_out, trained.seen, trained.split, args.seen)
