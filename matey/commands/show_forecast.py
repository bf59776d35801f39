"""Draws a rollout beside the truth, for tools/show_forecast.py."""

from __future__ import annotations

import argparse

from transformers.utils import logging as transformers_logging

from matey.checkpoints.trained import load_trained
from matey.checkpoints.trained_folder import CheckpointError
from matey.data import DataError, open_dataset
from matey.evaluate.snapshots import forecast_snapshots
from matey.mistakes import writing
from matey.report.png import write_png
from matey.report.snapshot_plots import snapshots_figure


def main(args: argparse.Namespace) -> int:
    """Draw; return 0 if all went well, 2 for a mistake that the printed sentence explains."""
    transformers_logging.disable_progress_bar()
    with writing(args.out):
        draw(args)
    return 0


def draw(args: argparse.Namespace) -> None:
    """Forecast, write the picture and print tokens and errors."""
    trained = load_trained(args.checkpoint)
    num_frames = args.history or trained.num_frames
    if num_frames is None:
        raise CheckpointError(f"{args.checkpoint} does not say how many frames of history it takes; give --history.")
    data = open_dataset(args.data)
    field = args.field or data.fields[0]
    if field not in data.fields:
        raise DataError(f"{args.data} has no field {field!r}; its fields are {', '.join(data.fields)}.")
    snapshots = forecast_snapshots(trained.model, data, args.trajectory, args.start, num_frames, sorted({*args.steps}))
    write_png(snapshots_figure(snapshots, data.fields.index(field)), args.out)
    for snapshot in snapshots:
        errors = f"NRMSE {snapshot.error:.4f}, persistence {snapshot.persistence:.4f}" if snapshot.step else "known"
        print(f"{snapshot.step:5d} snapshots later: {snapshot.layout.num_tokens} tokens, {errors}")
