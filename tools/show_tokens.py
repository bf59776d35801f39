"""Draw the mesh that a run's tokenizer chooses over a field.

    python tools/show_tokens.py FILE [--config RUN.yaml] [--set tokens.refine=0.1] --out mesh.png

The first, middle and last window of one trajectory are drawn; their tokens are counted per level beside the uniform fine grid.
"""

from __future__ import annotations

import argparse
import sys

from matey.config import ConfigError, flags, load_config, parse_config, with_overrides
from matey.data import DataError, open_dataset
from matey.data.windows import num_starts
from matey.evaluate.examples import Example, make_examples
from matey.evaluate.held_out import HeldOut
from matey.evaluate.plots import mesh_figure, write_png
from matey.model.matey import MateyModel
from matey.train.network import check_fit, model_config, with_vocabulary

# What a run must say and a mesh does not depend on.
DEFAULTS = {"data": {"sets": [{"path": "unused"}]}, "train": {"steps": 1}, "output": {"dir": "unused"}}


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="data set: a file, a folder or a glob")
    parser.add_argument("--config", help="run YAML whose tokens and history are taken; by default the schema's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    parser.add_argument("--trajectory", type=int, default=0, help="number of the trajectory, counted from 0 (0)")
    parser.add_argument("--out", required=True, type=flags.path, help="PNG to write")
    args = parser.parse_args()
    try:
        examples = choose(args.file, args.config, args.set, args.trajectory)
        write_png(mesh_figure(examples), args.out)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot write {args.out} ({error.strerror}); choose another --out.", file=sys.stderr)
        return 2
    print(count(examples))
    return 0


def choose(path: str, config: str | None, overrides: list[str], trajectory: int) -> list[Example]:
    """Tokenize three windows of a trajectory as the run would."""
    data = open_dataset(path)
    run = load_config(config, overrides) if config else parse_config(with_overrides(DEFAULTS, overrides), "--set")
    run = with_vocabulary(run.model_copy(update={"model": run.model.model_copy(update={"fields": None})}), [data])
    if not 0 <= trajectory < data.num_trajectories:
        raise DataError(f"{path} has {data.num_trajectories} trajectories, numbered from 0; got {trajectory}.")
    about = data.trajectories[trajectory]
    if not config:
        history = max(1, min(run.data.history, about.num_frames - 1))
        run = run.model_copy(update={"data": run.data.model_copy(update={"history": history})})
    num_starts(about, run.data.history, follow=1)  # raises where the trajectory is too short
    check_fit(model_config(run), [data])
    # The mesh depends on the fields alone, so a model that has learnt nothing chooses it as well as any.
    model = MateyModel(model_config(run)).eval()
    return make_examples(model, HeldOut((data,), ((trajectory,),), run.data.history), lead=1)


def count(examples: list[Example]) -> str:
    """Return the table of tokens per level."""
    patches = [f"patch {'x'.join(map(str, patch))}" for patch in examples[0].patches]
    rows = [["last frame", *patches, "tokens", "uniform", "share"]]
    for example in examples:
        tokens = example.tokens_per_level
        share = f"{sum(tokens) / example.num_uniform_tokens:.0%}"
        rows.append([str(example.frame), *map(str, tokens), str(sum(tokens)), str(example.num_uniform_tokens), share])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
