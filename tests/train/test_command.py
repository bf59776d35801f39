"""What the command line of a run refuses before PyTorch is imported."""

import pytest

from matey.config import ConfigError
from matey.train.command import check_accelerator


@pytest.mark.parametrize("chosen", ["xpu", "gpu", ""])
def test_an_accelerator_that_runs_do_not_take_is_refused(chosen):
    with pytest.raises(ConfigError, match=f"DS_ACCELERATOR is '{chosen}', not one of cuda, cpu"):
        check_accelerator({"DS_ACCELERATOR": chosen})


@pytest.mark.parametrize("variables", [{}, {"DS_ACCELERATOR": "cuda"}, {"DS_ACCELERATOR": "cpu"}])
def test_gpus_the_cpu_or_nothing_may_be_chosen(variables):
    check_accelerator(variables)
