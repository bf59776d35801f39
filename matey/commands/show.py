"""Draws the mesh of tokens, over a field and over a rollout beside the truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from matey.checkpoints.trained import load_trained
from matey.config import RunConfig
from matey.data import DataError, TrajectorySet, Window, open_dataset
from matey.data.trajectories import lacking_note
from matey.data.windows import num_starts
from matey.evaluate.forecaster import make_examples
from matey.evaluate.forecasts.request import ForecastRequest
from matey.evaluate.held_out import HeldOut, check_fit, without_seen
from matey.evaluate.rollout import show_rollout
from matey.metrics import error_text
from matey.mistakes import writing
from matey.model.configuration import model_config
from matey.model.matey import MateyModel, quiet
from matey.report.pictures import write_png
from matey.report.plots import errors, mesh_figure, snapshots_figure
from matey.report.tables import mesh_table
from matey.train import network


def draw_forecast(args: argparse.Namespace) -> int:
    """Forecast, write the picture and print tokens and errors; return 0."""
    with quiet():
        trained = load_trained(args.checkpoint)
    num_frames = args.history or trained.num_frames
    data = open_dataset(args.data).with_given(trained.model.config.given)
    field = args.field or data.fields[0]
    if field not in data.fields:
        raise DataError(f"{args.data} has no field {field!r}; its fields are {', '.join(data.fields)}.")
    num_steps = max(args.steps)
    request = ForecastRequest(data, (args.trajectory,), args.start, num_frames, num_steps, lead=1)
    if (num_true := request.num_true(args.trajectory)) < num_steps:
        raise DataError(
            f"{request.first.label}: expected --steps of at most the {num_true} snapshots that follow what the model is given "
            f"from frame {args.start} on, got {num_steps}; take fewer, or an earlier --start."
        )
    held_out = HeldOut((data,), ((args.trajectory,),), num_frames)
    check_fit(trained.model, held_out)
    window = Window(0, args.trajectory, args.start, lead=1)
    shown = show_rollout(trained.model, held_out, window, num_steps, {0, *args.steps}, data.fields.index(field))
    with writing(args.out):
        write_png(snapshots_figure(shown), args.out)
    for view, (error, persistence) in zip(shown.views, errors(shown), strict=True):
        assert view.layout is not None  # only peers have no tokens, and none comes here
        found = f"NRMSE {error_text(error)}, persistence {error_text(persistence)}" if view.step else "known"
        print(f"{view.step:5d} snapshots later: {view.layout.num_tokens} tokens, {found}")
    takes = trained.model.config
    notes = without_seen(held_out, trained.seen, trained.split, "score").notes
    for note in filter(None, (lacking_note(takes.parameters, takes.given, [data]), *notes)):
        print(note)
    return 0


def draw_tokens(data: TrajectorySet, run: RunConfig, trajectory: int, out: Path) -> int:
    """Draw and count the tokens of three windows of a trajectory, as the run cuts it; return 0."""
    # Refinement depends on the data's fields alone, so an untrained model chooses the same mesh.
    alone = {"fields": None, "given": (), "parameters": ()}
    run = network.with_vocabulary(run.model_copy(update={"model": run.model.model_copy(update=alone)}), [data])
    num_starts(data.trajectories[trajectory], run.data.history, follow=1)  # raises if the trajectory is too short
    network.check_fit(model_config(run), [data])
    model = MateyModel(model_config(run)).eval()
    examples = make_examples(model, HeldOut((data.with_given(()),), ((trajectory,),), run.data.history), lead=1)
    with writing(out):
        write_png(mesh_figure(examples), out)
    print(mesh_table(examples).text())
    return 0
