"""Draw the mesh that a run's tokenizer chooses over a field.

    python tools/show_tokens.py FILE [--config RUN.yaml] [--set tokens.refine=0.1] --out mesh.png

The first, middle and last window of one trajectory are drawn; their tokens are counted per level beside the uniform fine grid.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags, load_config, parse_config, with_overrides
from matey.data import DataError, open_dataset
from matey.process.entry_point import entry_point

# Settings that a run must have but that a mesh does not depend on.
DEFAULTS = {"data": {"sets": [{"path": "unused"}]}, "train": {"steps": 1}, "output": {"dir": "unused"}}


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="data set: a file, a folder or a glob")
    parser.add_argument("--config", help="run YAML whose tokens and history are taken; by default the schema's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    parser.add_argument("--trajectory", type=int, default=0, help="number of the trajectory, counted from 0 (0)")
    parser.add_argument("--out", required=True, type=flags.path, help="PNG to write")
    args = parser.parse_args()
    if args.config:
        run = load_config(args.config, args.set)
    else:
        run = parse_config(with_overrides(DEFAULTS, args.set), "--set")
    data = open_dataset(args.file)
    if not 0 <= args.trajectory < data.num_trajectories:
        raise DataError(
            f"{args.file} has {data.num_trajectories} trajectories, numbered from 0; got {args.trajectory}."
        )
    if not args.config:  # no history was asked for, and a short trajectory has a shorter one
        history = max(1, min(run.data.history, data.trajectories[args.trajectory].num_frames - 1))
        run = run.model_copy(update={"data": run.data.model_copy(update={"history": history})})
    from matey.commands.show_tokens import main as show_tokens

    return show_tokens(data, run, args.trajectory, args.out)


if __name__ == "__main__":
    sys.exit(main())
