"""Histories of the model's own making: when they are made, what they are, and the same on any number of ranks."""

import sys

import pytest
import torch

from matey.config import TrainSection
from matey.evaluate.rollout import rollout
from matey.train.ahead import num_rolled
from tests.support.programs import cases_of, start, start_ranks
from tests.train.unroll_cases import batches, told_model


def test_the_asked_share_of_steps_is_unrolled_by_up_to_so_many_steps():
    settings = TrainSection(steps=1, unroll=3, unroll_share=0.25, seed=5)
    rolled = [num_rolled(step, settings) for step in range(2000)]
    assert set(rolled) == {0, 1, 2, 3}
    assert 0.22 < sum(number > 0 for number in rolled) / len(rolled) < 0.28
    assert rolled[:400] == [num_rolled(step, settings) for step in range(400)]  # so that a resumed run does the same
    assert rolled[:400] != [num_rolled(step, replace_seed(settings, 6)) for step in range(400)]
    assert not any(num_rolled(step, TrainSection(steps=1)) for step in range(100))


def replace_seed(settings, seed):
    return settings.model_copy(update={"seed": seed})


def test_histories_are_pushed_forward_alike_by_every_stage_and_group(monkeypatch):
    # The untrained model changes what it is given by more than any that is trained.
    monkeypatch.setattr("matey.evaluate.rollout.MAX_GROWTH", torch.inf)
    expected_lead, expected = [], []
    model = told_model()
    for batch in batches():
        frames = [batch.history[:, number] for number in range(2)] + list(rollout(model, batch, 2))
        steps = (batch.lead_time - 1).clamp(max=2)
        later = torch.stack([torch.stack(frames[k : k + 2])[:, sample] for sample, k in enumerate(steps.tolist())])
        expected.append(later.flatten())
        expected_lead.append((batch.lead_time - steps).tolist())
    assert len({lead for of_batch in expected_lead for lead in of_batch}) > 1, "all samples are alike"
    losses = []
    for num_ranks in (1, 2):
        cases = cases_of(start_ranks(num_ranks, "-m", "tests.train.unroll_cases"))
        assert len(cases) == 4
        for name, lead_time, history, loss in cases:
            assert lead_time == expected_lead, name
            for got, wanted in zip(history, expected, strict=True):
                assert torch.allclose(torch.tensor(got), wanted, rtol=1e-5, atol=1e-5), name
            losses.append(loss)
    for loss in losses[1:4]:
        assert loss == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("num_ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_that_read_parts_push_them_forward_as_one_process(num_ranks):
    found = cases_of(start_ranks(num_ranks, "-m", "tests.train.unroll_cases", "parts"), word="parts")
    assert len(found) == 2  # both networks
    for off, moved in found:
        assert off < 1e-10 and moved > 1e-3


PROGRAM = """
import sys
from matey.train import loop
rolled_out = loop.rolled_out
def said(engine, batches, num_steps):
    print("rolled", num_steps, *(int(lead) for batch in batches for lead in batch.lead_time))
    return rolled_out(engine, batches, num_steps)
loop.rolled_out = said
from matey.commands.subcommands import main
sys.exit(main())
"""


def test_what_is_read_for_histories_of_the_models_making_is_rolled_out(run_yaml):
    train = {"steps": 8, "micro_batch": 1, "accumulation": 2, "unroll": 5, "unroll_share": 0.5, "validate_every": 8}
    config = run_yaml(train=train, data={"lead_max": 1})
    arguments = ["pretrain", "--deepspeed_config", "ds_configs/zero1.json", "--config", str(config)]
    result = start([sys.executable, "-c", PROGRAM, *arguments])
    assert result.returncode == 0, result.stderr
    rolled = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("rolled")]
    assert any(int(number) > 1 for number, _ in rolled), result.stdout
    # With leads of one frame the target lies as many frames further on as are rolled out.
    assert all(int(lead) <= 1 + int(number) for number, lead in rolled)
    assert any(int(lead) == 1 + int(number) > 1 for number, lead in rolled)
