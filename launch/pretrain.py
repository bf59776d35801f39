"""Pretrain one model on many PDE systems: `deepspeed launch/pretrain.py --deepspeed_config JSON --config YAML`."""

from __future__ import annotations

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.process.entry_point import interruptible
from matey.process.start import hold


@interruptible
def main() -> int:
    """Run from the command line, with the exit codes of `matey.train.run.run_training`."""
    hold()  # before the imports that take seconds
    from matey.train.command import check_no_source, read_settings, training_parser

    args = training_parser(__doc__).parse_args()
    run, deepspeed_config = read_settings(args, check_no_source)
    # PyTorch and DeepSpeed take seconds to import, so the command line and its files are checked first.
    from matey.train.run import pretrain, run_training

    return run_training(pretrain, run, deepspeed_config, only_describe=args.describe)


if __name__ == "__main__":
    sys.exit(main())
