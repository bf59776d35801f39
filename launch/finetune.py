"""Fine-tune a trained model: `deepspeed launch/finetune.py --deepspeed_config JSON --config YAML --pretrained RUN_OR_MODEL`."""

from __future__ import annotations

import json
import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.process.entry_point import interruptible
from matey.process.start import hold

FLAGS = {"pretrained": "finetune.pretrained", "train": "finetune.train", "trajectories": "data.trajectories"}


@interruptible
def main() -> int:
    """Run from the command line, with the exit codes of launch/pretrain.py."""
    hold()  # before the imports that take seconds
    from matey.config.choices import FINETUNE_MODES
    from matey.train.command import named_source, read_settings, training_parser

    parser = training_parser(__doc__)
    parser.add_argument(
        "--pretrained", metavar="RUN_OR_MODEL", help="folder of a run or a model, or none: random initial weights"
    )
    parser.add_argument(
        "--train",
        metavar="MODE",
        help=f"parts that are trained: {', '.join(FINETUNE_MODES.own)}, or a package's",
    )
    parser.add_argument(
        "--trajectories", type=int, metavar="N", help="train on the first N trajectories of a fixed order"
    )
    args = parser.parse_args()
    given = {key: getattr(args, flag) for flag, key in FLAGS.items() if getattr(args, flag) is not None}
    run, deepspeed_config = read_settings(
        args, named_source, [f"{key}={json.dumps(value)}" for key, value in given.items()]
    )
    # PyTorch and DeepSpeed take seconds to import, so the command line and its files are checked first.
    from matey.train.finetune import finetune
    from matey.train.run import run_training

    return run_training(finetune, run, deepspeed_config, only_describe=args.describe)


if __name__ == "__main__":
    sys.exit(main())
