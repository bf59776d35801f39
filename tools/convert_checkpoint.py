"""Turn a training checkpoint of any ranks and ZeRO stage into another form, or say what is in it and whether it is whole.

    python tools/convert_checkpoint.py CHECKPOINT --to huggingface|fp32|universal --out DIR [--ema] [--dtype bfloat16]
    python tools/convert_checkpoint.py --describe CHECKPOINT

CHECKPOINT is a run's folder (its newest checkpoint is taken) or one of its checkpoints/step_*. One process on a CPU does it.
"""

from __future__ import annotations

import argparse
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.checkpoints.run_files import first_file, step_folder
from matey.config import flags
from matey.process.entry_point import entry_point


@entry_point
def main() -> int:
    """Run from the command line.

    Returns:
        0 if all went well, 1 if a described checkpoint is corrupt, 2 for a mistake that the printed sentence explains.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=flags.path, help="a run's folder, or one of its checkpoints"
    )
    parser.add_argument(
        "--to",
        choices=("huggingface", "fp32", "universal"),
        help="a model for from_pretrained, bare weights, or a run that other ranks and ZeRO stages can resume",
    )
    parser.add_argument("--out", type=flags.path, metavar="DIR", help="folder to make")
    parser.add_argument("--ema", action="store_true", help="take the moving average of the weights (train.ema)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of the weights (float32)"
    )
    parser.add_argument(
        "--describe",
        action="store_true",
        help="print what the checkpoint holds and which files are corrupt; change nothing",
    )
    args = parser.parse_args()
    if args.describe == bool(args.to) or bool(args.to) != bool(args.out):
        parser.error("give either --describe, or --to and --out")
    first_file(step_folder(args.checkpoint))  # raises if there is no checkpoint
    from matey.commands.convert_checkpoint import main as convert_checkpoint

    return convert_checkpoint(args)


if __name__ == "__main__":
    sys.exit(main())
