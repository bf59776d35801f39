"""Forecast trajectories with a trained model, into a file that other programs open.

    python launch/predict.py --checkpoint RUN_OR_MODEL --data FILE --out forecast.nc [--steps 100 --lead 5 --start 0]

The suffix of --out chooses the format: .nc is netCDF by the CF conventions, .zarr a Zarr store, .h5 and .hdf5 the layout of The
Well. There is a variable for each field, with dimensions trajectory, time, [z,] y, x. The data needs no more frames than the
model is given: where a trajectory ends, the forecast goes on without truth. The same command goes on with a forecast that was
killed.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.checkpoints.run_files import is_run
from matey.config import flags
from matey.config.flags import FlagError, check_device
from matey.data.registry import check_found
from matey.evaluate.forecasts.formats import check_path, film_problem
from matey.process.entry_point import entry_point
from matey.process.launchers import looks_for_all


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    args = parse_arguments()
    check_device(args.device)
    is_run(args.checkpoint)  # raises if the folder holds no model
    if looks_for_all():
        check_found(args.data)
    check_path(args.out, overwrite=args.overwrite)
    if args.animate is not None and (problem := film_problem(args.animate)):
        raise FlagError(f"--animate: {problem}")
    from matey.commands.predict import main as predict

    return predict(args)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = flags.RanksParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=flags.path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/"
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="data set: a file, a folder or a glob")
    parser.add_argument(
        "--out", required=True, type=flags.path, metavar="FILE", help="file to make: .nc, .zarr, .h5 or .hdf5"
    )
    parser.add_argument("--steps", type=flags.whole(1), default=20, metavar="N", help="snapshots to forecast (20)")
    parser.add_argument(
        "--lead",
        type=flags.whole(1),
        default=1,
        metavar="N",
        help="snapshots predicted from the same frames, before their predictions are built upon (1)",
    )
    parser.add_argument(
        "--conserve",
        action="store_true",
        help="keep what a system is known to conserve, such as mass, momentum and energy, in all frames",
    )
    parser.add_argument("--start", type=flags.whole(0), default=0, help="first frame that the model is given (0)")
    parser.add_argument(
        "--trajectories",
        type=flags.wholes(0),
        metavar="N,N",
        help="numbers of the trajectories, counted from 0; by default all",
    )
    parser.add_argument("--history", type=flags.whole(1, 1000), metavar="T", help="frames given; by default as trained")
    parser.add_argument("--animate", type=flags.path, metavar="FILM", help="film of the first trajectory: .gif or .mp4")
    parser.add_argument("--field", metavar="NAME", help="field of the film; by default the first")
    parser.add_argument(
        "--probe",
        action="append",
        default=[],
        type=flags.wholes(0, counts=(2, 3)),
        metavar="Y,X",
        help="cell, also as Z,Y,X, of which a time series is written as CSV and drawn; may be given several times",
    )
    parser.add_argument(
        "--batch", type=flags.whole(1), default=16, metavar="N", help="trajectories forecast together (16)"
    )
    parser.add_argument("--device", default="auto", help="device of one process: auto, cpu, cuda or cuda:1 (auto)")
    parser.add_argument("--threads", type=flags.threads, help="CPU threads; by default PyTorch's choice")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    flags.take_local_rank(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
