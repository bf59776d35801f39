"""A run that an older version started, which drew samples in another order, is told so when it goes on."""

import pytest
import torch

from tests.support.runs import pretrain


@pytest.mark.processes
def test_an_older_run_that_goes_on_is_told_of_another_order_of_samples(run_yaml, tmp_path):
    for resume, is_older in (([], False), (["--resume"], False), (["--resume"], True)):
        last = 4 if not resume else 6 if not is_older else 8
        if is_older:
            (path,) = (tmp_path / "run" / "checkpoints" / "step_000006").glob("mp_rank_00_model_states.pt")
            state = torch.load(path, weights_only=False)
            del state["order"]
            torch.save(state, path)
        result = pretrain(run_yaml(train={"steps": last}), *resume)
        assert result.returncode == 0, result.stderr[-2000:]
        assert ("drew samples in another order" in result.stdout) == is_older
