"""The commands that train; the command line and its files are checked before PyTorch and DeepSpeed, which take seconds."""

from __future__ import annotations

import json

from matey.process.start import entry_point, hold

FINETUNE_FLAGS = {"pretrained": "finetune.pretrained", "train": "finetune.train", "trajectories": "data.trajectories"}


@entry_point
def pretrain() -> int:
    """Pretrain one model on many PDE systems, with the exit codes of `matey.commands.training.run_training`."""
    hold()  # before the imports that take seconds
    from matey.commands.training import check_no_source, read_settings, run_training, training_parser

    usage = (
        "Pretrain one model on many PDE systems: `deepspeed launch/pretrain.py --deepspeed_config JSON --config YAML`."
    )
    args = training_parser(usage).parse_args()
    run, deepspeed_config = read_settings(args, check_no_source)
    from matey.train.run import pretrain

    return run_training(pretrain, run, deepspeed_config, only_describe=args.describe)


@entry_point
def finetune() -> int:
    """Fine-tune a trained model, with the same exit codes."""
    hold()
    from matey.commands.training import read_settings, run_training, training_parser
    from matey.config import source_of
    from matey.config.schema import FINETUNE_MODES

    flags = "--deepspeed_config JSON --config YAML --pretrained RUN_OR_MODEL"
    parser = training_parser(f"Fine-tune a trained model: `deepspeed launch/finetune.py {flags}`.")
    source = "folder of a run or a model, or none: random initial weights"
    parser.add_argument("--pretrained", metavar="RUN_OR_MODEL", help=source)
    modes = f"parts that are trained: {', '.join(FINETUNE_MODES.own)}, or a package's"
    parser.add_argument("--train", metavar="MODE", help=modes)
    number = "train on the first N trajectories of a fixed order"
    parser.add_argument("--trajectories", type=int, metavar="N", help=number)
    args = parser.parse_args()
    given = {key: getattr(args, flag) for flag, key in FINETUNE_FLAGS.items() if getattr(args, flag) is not None}
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    run, deepspeed_config = read_settings(args, source_of, settings)
    from matey.train.finetune import finetune

    return run_training(finetune, run, deepspeed_config, only_describe=args.describe)
