"""Draws a rollout together with the truth, for tools/show_forecast.py."""

from __future__ import annotations

import argparse

from matey.checkpoints.trained import load_trained
from matey.data import DataError, Window, open_dataset
from matey.data.trajectories import lacking_note
from matey.data.windows import num_starts
from matey.evaluate.evaluation import check_fit
from matey.evaluate.held_out import HeldOut, without_seen
from matey.evaluate.shown_rollouts import show_rollout
from matey.metrics import error_text
from matey.mistakes import writing
from matey.model.matey import quiet
from matey.report.png import write_png
from matey.report.snapshot_plots import errors, snapshots_figure


def main(args: argparse.Namespace) -> int:
    """Draw; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    with writing(args.out):
        draw(args)
    return 0


def draw(args: argparse.Namespace) -> None:
    """Forecast, write the picture and print tokens and errors."""
    with quiet():
        trained = load_trained(args.checkpoint)
    num_frames = args.history or trained.num_frames
    data = open_dataset(args.data).with_given(trained.model.config.given)
    field = args.field or data.fields[0]
    if field not in data.fields:
        raise DataError(f"{args.data} has no field {field!r}; its fields are {', '.join(data.fields)}.")
    if args.trajectory >= data.num_trajectories:
        raise DataError(
            f"{data.system} has {data.num_trajectories} trajectories here, numbered from 0; got {args.trajectory}."
        )
    held_out = HeldOut((data,), ((args.trajectory,),), num_frames)
    check_fit(trained.model, held_out)
    num_steps, about = max(args.steps), data.trajectories[args.trajectory]
    last_start = num_starts(about, num_frames, num_steps) - 1
    if args.start > last_start:
        raise DataError(
            f"{about.label}: with {num_steps} snapshots to forecast, expected a first frame from 0 to {last_start}, got "
            f"{args.start}."
        )
    window = Window(0, args.trajectory, args.start, lead=1)
    shown = show_rollout(trained.model, held_out, window, num_steps, {0, *args.steps}, data.fields.index(field))
    write_png(snapshots_figure(shown), args.out)
    for view, (error, persistence) in zip(shown.views, errors(shown), strict=True):
        assert view.layout is not None  # only peers have no tokens, and none comes here
        found = f"NRMSE {error_text(error)}, persistence {error_text(persistence)}" if view.step else "known"
        print(f"{view.step:5d} snapshots later: {view.layout.num_tokens} tokens, {found}")
    takes = trained.model.config
    notes = without_seen(held_out, trained.seen, trained.split, "score").notes
    for note in filter(None, (lacking_note(takes.parameters, takes.given, [data]), *notes)):
        print(note)
