"""Draw a rollout beside the truth, with the mesh of tokens that the model chooses at each time.

    python tools/show_forecast.py --checkpoint RUN_OR_MODEL --data PATH --out forecast.png [--steps 20,40,60]

Upper row: the last frame that the model knows, and what it forecasts from there over its own predictions, each under the mesh
of the tokens into which the model cuts it. Lower row: the truth. Errors are NRMSE, the mean over the fields.
"""

from __future__ import annotations

import argparse
import sys

from matey.config import flags


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parse_arguments()

    # PyTorch and transformers are imported here, so that --help and mistakes in flags do not wait for them.
    from transformers.utils import logging as transformers_logging

    from matey.config import ConfigError
    from matey.data import DataError
    from matey.evaluate.trained import CheckpointError

    transformers_logging.disable_progress_bar()
    try:
        draw(args)
    except (CheckpointError, ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot write {args.out} ({error.strerror}); choose another --out.", file=sys.stderr)
        return 2
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=flags.path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/"
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="data set: a file, a folder or a glob")
    parser.add_argument(
        "--trajectory", type=flags.whole(0), default=0, help="number of the trajectory, counted from 0 (0)"
    )
    parser.add_argument("--start", type=flags.whole(0), default=0, help="first frame that the model is given (0)")
    parser.add_argument(
        "--steps",
        type=flags.wholes(1, 10_000, counts=(1, 2, 3, 4, 5)),
        default=(20, 40, 60),
        help="snapshots ahead that are drawn, up to five (20,40,60)",
    )
    parser.add_argument("--field", metavar="NAME", help="field that is drawn; by default the first")
    parser.add_argument("--history", type=flags.whole(1, 1000), metavar="T", help="frames given; by default as trained")
    parser.add_argument("--out", required=True, type=flags.path, metavar="PNG", help="picture to write")
    return parser.parse_args()


def draw(args: argparse.Namespace) -> None:
    """Forecast, write the picture and print tokens and errors."""
    from matey.data import DataError, open_dataset
    from matey.evaluate.plots import write_png
    from matey.evaluate.snapshot_plots import snapshots_figure
    from matey.evaluate.snapshots import forecast_snapshots
    from matey.evaluate.trained import CheckpointError, load_trained

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


if __name__ == "__main__":
    sys.exit(main())
