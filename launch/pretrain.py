"""Pretrain one model on many PDE systems: `deepspeed launch/pretrain.py --deepspeed_config JSON --config YAML`."""

from __future__ import annotations

import sys

import matey.held_signals  # noqa: F401 (before the imports that take seconds)
from matey.train.command import run_training, training_parser
from matey.train.pretrain import pretrain

if __name__ == "__main__":
    sys.exit(run_training(pretrain, training_parser(__doc__).parse_args()))
