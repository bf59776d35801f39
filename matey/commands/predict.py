"""Forecasts into a file, with a film and time series on request, for launch/predict.py."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from matey.checkpoints.trained import load_trained
from matey.config import RunConfig
from matey.config.flags import FlagError, command_line
from matey.data import DataError, TrajectorySet, Window, open_dataset
from matey.data.trajectories import lacking_note
from matey.data.windows import num_starts
from matey.evaluate.evaluation import make_examples
from matey.evaluate.forecasts import series
from matey.evaluate.forecasts.formats import FORMATS, ForecastFile
from matey.evaluate.forecasts.request import OTHER_TIMES, ForecastRequest
from matey.evaluate.held_out import HeldOut, check_fit, without_seen
from matey.evaluate.rollout import kept_note, show_rollout
from matey.metrics import error_text
from matey.mistakes import writing
from matey.model.configuration import model_config
from matey.model.matey import MateyModel, quiet
from matey.parallel.collectives import shared_out, world_size
from matey.parallel.environment import run_on_ranks_or_here
from matey.parallel.sequence import share_samples
from matey.report.evaluation import mesh_table
from matey.report.pictures import write_png
from matey.report.plots import Film, errors, mesh_figure, probes_figure, snapshots_figure, write_film
from matey.train import network

MOST_PICTURES = 250  # in a film; one of a longer forecast shows every second, third ... snapshot


def main(args: argparse.Namespace) -> int:
    """Forecast; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    return run_on_ranks_or_here(partial(run, args), args.device, args.threads)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Forecast as the command line says.

    Several ranks share the samples, each with its part of the fields; the first prints the files written and the final errors.
    """
    with quiet():
        trained = load_trained(args.checkpoint)
    if world_size() > 1:
        share_samples(trained.model)
    forecasts = series.forecast(
        trained,
        open_dataset(args.data, share=shared_out),
        steps=args.steps,
        lead=args.lead,
        conserve=args.conserve,
        start=args.start,
        trajectories=args.trajectories,
        history=args.history,
        batch_size=args.batch,
        device=str(device),
        command=command_line(),
    )
    forecasts = replace(forecasts, found_by=args.data)
    request = forecasts.request
    cells = series.cells_of(request, args.probe)
    field = number_of(args.field, request.data)
    total, is_first = len(request.trajectories) * request.num_steps, forecasts.model.sequence_group.ranks.place == 0
    with writing(args.out):
        with tqdm(total=total, desc="predict", unit=" frames", disable=None if is_first else True) as bar:
            forecasts.write(args.out, overwrite=args.overwrite, on_frames=bar.update)
    if not is_first:
        return
    kept = kept_note(request.data, request.trajectories[0]) if request.conserve else ""
    times = (
        request.own_clocks() and f"{OTHER_TIMES} The forecast of a single one (--trajectories 3, say) has its dates."
    )
    for note in filter(None, (forecasts.note, kept, times)):
        print(note)
    print(f"Wrote {args.out}: trajectories: {len(request.trajectories)}, snapshots of each: {request.num_steps}.")
    with closing(FORMATS[args.out.suffix].open_file(args.out, forecasts.contents, "r")) as file:
        if cells:
            write_series(args.out, forecasts, series.probe(request, file, cells))
        if args.animate is not None:
            animate(args.animate, forecasts, file, field)
        print(f"\n{series.closing_table(request, file)}")
    if scored := tuple(number for number in request.trajectories if request.num_true(number)):
        held_out = HeldOut((request.data,), (scored,), request.num_frames)
        for note in without_seen(held_out, trained.seen, trained.split, "score").notes:  # on errors that flatter
            print(note)


def number_of(field: str | None, data: TrajectorySet) -> int:
    """Return the place of the field that is drawn among those of the data, by default the first."""
    if field not in (None, *data.fields):
        raise FlagError(f"--field: the data has no field {field!r}; its fields are {', '.join(data.fields)}.")
    return 0 if field is None else data.fields.index(field)


def write_series(out: Path, forecasts: series.Forecasts, found: list[series.ProbeSeries]) -> None:
    """Write the series at the probes beside the file, as CSV and as a picture."""
    table, picture = out.with_suffix(".probes.csv"), out.with_suffix(".probes.png")
    with writing(table):
        series.write_probes(table, forecasts.request, found)
        write_png(probes_figure(found, forecasts.request.data.fields, forecasts.request.clock), picture)
    print(f"Wrote {table} and {picture}.")


def animate(path: Path, forecasts: series.Forecasts, file: ForecastFile, field: int) -> None:
    """Write the film of the first trajectory."""
    request = forecasts.request
    every = -(-request.num_steps // MOST_PICTURES)
    steps = range(1, request.num_steps + 1, every)
    some = [*series.views(forecasts.model, request, file, field, steps[:: max(1, len(steps) // 20)])]
    film = Film(some, request.first.spacing, request.data.fields[field], request.clock)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = series.views(forecasts.model, request, file, field, steps)
        write_film(path, film, tqdm(shown, total=len(steps), desc="film", unit=" pictures", disable=None))
    print(f"Wrote {path}: trajectory {request.trajectories[0]}, {len(steps)} pictures.")


def draw_forecast(args: argparse.Namespace) -> int:
    """Forecast, write the picture and print tokens and errors; return 0."""
    with quiet():
        trained = load_trained(args.checkpoint)
    num_frames = args.history or trained.num_frames
    data = open_dataset(args.data).with_given(trained.model.config.given)
    field = number_of(args.field, data)
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
    shown = show_rollout(trained.model, held_out, window, num_steps, {0, *args.steps}, field)
    with writing(args.out):
        write_png(snapshots_figure(shown), args.out)
    for view, (error, persistence) in zip(shown.views, errors(shown), strict=True):
        assert view.layout is not None  # only peers have no tokens, and none comes here
        found = f"VRMSE {error_text(error)}, persistence {error_text(persistence)}" if view.step else "known"
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
