"""A pretraining run: the vocabulary is that of the data, and the weights are random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from matey.config import RunConfig
from matey.model.configuration import model_config
from matey.model.matey import MateyModel
from matey.parallel.agreement import check_same_run
from matey.train.beforehand import check_no_source
from matey.train.network import check_fit, with_vocabulary
from matey.train.run import train_run
from matey.train.run_data import open_data


def pretrain(
    run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None], *, only_describe: bool = False
) -> bool:
    """Train as ``run`` says, from the start or from the newest checkpoint; return whether training is done.

    Args:
        run: the run; its vocabulary, if not given, is made of the fields of the data sets.
        deepspeed_config: the configuration of the engine.
        say: function that prints a line on rank 0.
        only_describe: whether to describe the run only, without training.
    """
    check_no_source(run)
    check_same_run(run, deepspeed_config)
    data = open_data(run)
    run = with_vocabulary(run, data.all_sets)
    config = model_config(run)
    check_fit(config, data.sets_and_views)
    torch.manual_seed(run.train.seed)
    return train_run(run, data, MateyModel(config), deepspeed_config, say, only_describe=only_describe)
