"""Evaluates a trained model, for launch/evaluate.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from matey.checkpoints.run_files import RECORDS, REPORT, distinct_names, is_peer
from matey.checkpoints.trained import Trained, TrainedPeer, load_peer, load_trained
from matey.config.flags import FlagError, command_line
from matey.data import DataError, open_dataset, open_sets
from matey.data.trajectories import lacking_note
from matey.data.views import CoarsenedTrajectories
from matey.evaluate import evaluation, held_out
from matey.evaluate.evaluation import Candidate, Protocol
from matey.evaluate.held_out import HeldOut, Part
from matey.evaluate.histories import has_tokens
from matey.evaluate.records import write_records
from matey.evaluate.rollout import kept_note, longest_rollout
from matey.mistakes import writing
from matey.model.boxes import share_of
from matey.model.matey import MateyModel, quiet
from matey.parallel.collectives import dealt, rank, shared_out
from matey.parallel.environment import run_on_ranks_or_here
from matey.parallel.sequence import share_samples
from matey.report import evaluation as report


def main(args: argparse.Namespace) -> int:
    """Evaluate, on the ranks of a launcher or in this process; return the exit code."""
    return run_on_ranks_or_here(partial(run, args), args.device, args.threads)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Evaluate as the command line says; with several ranks, the first writes and prints the results of all."""
    with quiet():
        models = [load(folder) for folder in args.checkpoint]
    names = distinct_names(args.checkpoint)
    if args.share > 1:
        share_fields(names, models, args.share)
    data = select_data(args, models, names)
    candidates = [
        Candidate(name, trained.model.to(device), args.history or trained.num_frames, trained.facts)
        for name, trained in zip(names, models, strict=True)
    ]
    data = replace(data, num_frames=max(candidate.num_frames for candidate in candidates))
    data = noted(args, models, candidates, without_bad_values(args, models, data))
    protocol = protocol_of(args, models, data)
    if protocol.rollout_steps < args.rollout:
        note = f"Rollouts end with the truth, after {protocol.rollout_steps} snapshots."
        data = replace(data, notes=(*data.notes, note))
    plans = evaluation.plan_comparison(candidates, data, protocol)
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    own = sum(
        chunk.num_forecasts
        for candidate, plan in zip(candidates, plans, strict=True)
        for tasks in (plan, evaluation.worth_tasks(plan) if has_tokens(candidate.model) else [])
        for chunk in dealt(evaluation.chunks(tasks, protocol), args.share)
    )
    with tqdm(total=own, desc="evaluate", unit=" forecasts", disable=rank() > 0) as bar:
        evaluations = [
            evaluation.evaluate(candidate.model, candidate.own(data), protocol, tasks, bar.update)
            for candidate, tasks in zip(candidates, plans, strict=True)
        ]
    if rank() > 0:
        return
    date, command = f"{datetime.now():%Y-%m-%d %H:%M}", command_line()
    alone = len(models) == 1
    folders = ["" if alone else name.replace("/", "-") for name in names]
    with writing(args.out):
        for folder, trained, candidate, found in zip(folders, models, candidates, evaluations, strict=True):
            (args.out / folder).mkdir(exist_ok=True)
            write_records(found.records, args.out / folder / RECORDS)
            about = report.describe(trained, candidate.own(data), protocol, date, command)
            report.write_report(args.out / folder / REPORT, found, about)
        if not alone:
            facts = [("date", date), ("command", command), *report.describe_context(data, device, protocol)]
            pages = [f"{folder}/{REPORT}" for folder in folders]
            report.write_comparison(args.out / REPORT, names, evaluations, facts, pages)
    for note in data.notes:
        print(note)
    summary = report.summary_text(evaluations[0], about.label), report.READING
    tables = summary if alone else (report.comparison_text(names, evaluations), report.STAR)
    print("", *tables, f"Report: {args.out / REPORT}", sep="\n\n")


def noted(
    args: argparse.Namespace, models: Sequence[Trained | TrainedPeer], candidates: Sequence[Candidate], data: HeldOut
) -> HeldOut:
    """Return the selection with what table and report say of it."""
    configs = [each.model.config for each in candidates if isinstance(each.model, MateyModel)]
    parameters, given = (
        {name for config in configs for name in getattr(config, kind)} for kind in ("parameters", "given")
    )
    notes = [lacking_note(sorted(parameters), sorted(given), data.sets)]
    # A held-out trajectory may be larger than those of its own run's training: there is no other data to fine-tune on.
    trained_here = not args.data and args.every == args.means == 1 and next(each for each in models if each.run)
    for each, candidate in zip(models, candidates, strict=True):
        if isinstance(candidate.model, MateyModel) and each is not trained_here:
            of = "" if len(candidates) == 1 else f"{candidate.name}: "
            notes += [of + note for note in held_out.beyond_training(candidate.model.config, candidate.own(data))]
    if partial := [candidate.name for candidate in candidates if candidate.own(data).systems != data.systems]:
        notes.append(f"Trained on one system alone, and not scored on the others: {', '.join(partial)}.")
    if args.share > 1:
        notes.append(evaluation.LEFT_OUT)
    if args.conserve:
        chosen = zip(data.sets, data.trajectories, strict=True)
        notes += dict.fromkeys(kept_note(each, numbers[0]) for each, numbers in chosen if numbers)
    return replace(data, notes=(*data.notes, *filter(None, notes)))


def share_fields(names: Sequence[str], models: Sequence[Trained | TrainedPeer], size: int) -> None:
    """Let groups of ``size`` ranks forecast together with each model, every rank with its part of the fields.

    Raises:
        FlagError: a model needs whole fields.
    """
    for name, trained in zip(names, models, strict=True):
        if isinstance(trained, TrainedPeer):
            raise FlagError(f"--share {size}: {name} is a peer, which needs whole fields; evaluate it without --share.")
        share_samples(trained.model, size)
        if share_of(trained.model.config, trained.model.sequence_group.ranks) is None:
            raise FlagError(
                f"--share {size}: {name} refines by a criterion that looks beyond a patch (a package's, or random with "
                "tokens.change), which needs whole fields; evaluate it without --share."
            )


def without_bad_values(args: argparse.Namespace, models: Sequence[Trained | TrainedPeer], data: HeldOut) -> HeldOut:
    """Return the selection without NaN and infinity, if the run that it is from skips them in training."""
    run = next((each.run for each in models if each.run is not None), None)
    if args.data or run is None or run.data.bad_values == "refuse":
        return data
    given = {name for each in models if isinstance(each, Trained) for name in each.model.config.given}
    return held_out.sound_beginnings(data, data.num_frames + max(args.rollout, *args.leads), given, shared_out)


def protocol_of(args: argparse.Namespace, models: Sequence[Trained | TrainedPeer], data: HeldOut) -> Protocol:
    """Return the measurements to make; rollouts go as far as the truth, also in steps of the longest lead common to all."""
    num_true = min(args.rollout, longest_rollout(data)) or args.rollout  # without any truth, planning raises the error
    longest = max(1, min(num_true, *(trained.lead_max or 1 for trained in models)))
    rollout_lead = min(args.rollout_lead or longest, max(1, num_true))
    return Protocol(args.leads, num_true, args.max_windows, args.batch, rollout_lead, args.conserve)


def load(folder: Path) -> Trained | TrainedPeer:
    """Load a run, a model or a peer, and print what could not be read in its folder."""
    trained = load_peer(folder) if is_peer(folder) else load_trained(folder)
    if trained.note and rank() == 0:
        print(trained.note)
    return trained


def select_data(args: argparse.Namespace, models: Sequence[Trained | TrainedPeer], names: Sequence[str]) -> HeldOut:
    """Open the data of the command line, or else of the first run, and select the trajectories."""
    trained = next((each for each in models if each.run is not None), models[0])
    of_the_run = None if trained.run is None else trained.run.data
    if args.data:
        sets = [open_dataset(path, share=shared_out) for path in args.data]
    else:
        assert of_the_run is not None, "launch/evaluate.py refuses models without a run and without data"
        sets = open_sets(of_the_run, shared_out)
    part: Part = args.split or ("all" if args.data else "test")
    num_frames = args.history or trained.num_frames
    data = held_out.hold_out(sets, part, num_frames, of_the_run, trained.split, are_of_the_run=not args.data)
    if not args.data:
        data = held_out.with_twins_noted(data, trained.seen, shared_out)
    for name, other in zip(names, models, strict=True):
        if other is trained and not args.data:
            continue
        try:
            data = held_out.without_seen(data, other.seen, other.split, args.seen, shared_out)
        except DataError as error:
            raise DataError(f"{name}: {error}" if len(models) > 1 else str(error)) from None
    if args.every == args.means == 1:
        return data
    views = [CoarsenedTrajectories(each, args.every, args.means) for each in data.sets]
    return replace(data, sets=tuple(views), notes=(*data.notes, f"The data is seen coarser: {views[0].view}."))
