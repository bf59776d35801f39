"""Training trajectories: every ZeRO stage, sequence group and cut of the batch beside one process."""

import json
from functools import cache

import pytest
import torch

from tests.support.laws import PROVED
from tests.support.programs import cases_of, start_ranks


def run_cases(num_ranks, accumulations, clips, stages=(0, 1, 2, 3), is_half_enough=True, **choices):
    """Return (name, what decides the result, losses and norms, weights) of half of the cases, see `is_chosen`, or of all."""
    chosen = {"offloads": [False], "recomputes": ["none"], "compiled": [False], **choices}.values()
    choices = json.dumps([stages, accumulations, clips, *chosen, is_half_enough])
    return cases_of(start_ranks(num_ranks, "-m", "tests.support.training_cases", choices, timeout=1500))


@cache
def reference(clip):
    """Losses and norms, and weights, of one process without ZeRO, with and without frozen blocks."""
    return {freeze: seen for _, (_, freeze), *seen in run_cases(1, [1], [clip], stages=[0], is_half_enough=False)}


def hold(cases):
    """Hold losses and norms to 1e-6 and weights to 1e-4 of one process without ZeRO."""
    off = 0.0
    for name, (clip, freeze), history, weights in cases:
        expected_history, expected_weights = (torch.tensor(values).double() for values in reference(clip)[freeze])
        history, weights = torch.tensor(history).double(), torch.tensor(weights).double()
        assert torch.allclose(history[::2], expected_history[::2], rtol=1e-6, atol=0), name
        assert torch.allclose(history[1::2], expected_history[1::2], rtol=1e-5, atol=0), name
        assert (weights - expected_weights).norm() < 1e-4 * expected_weights.norm(), name
        assert not torch.equal(history[0], history[2]), name
        off = max(off, ((history[::2] - expected_history[::2]) / expected_history[::2]).abs().max().item())
    PROVED.append(f"{len(cases)} training cases up to {cases[-1][0]}: losses off by at most {off:.1e} of one process's")


def test_two_ranks_train_as_one_process_with_optimizer_or_all_shared_and_every_group():
    cases = run_cases(2, [2], [0.05], recomputes=["all"], stages=[1, 3])  # all stages: below
    assert len(cases) == 2 * 2  # frozen or not by turns
    hold(cases)


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_stages_groups_accumulation_clipping_and_offload_train_as_one_process(num_ranks):
    accumulations = [2] if num_ranks == 4 else [1, 2]
    cases = run_cases(num_ranks, accumulations, [0, 0.05], offloads=[False, True])
    num_sizes = 2 if num_ranks == 2 else 1
    assert len(cases) == (4 + 2) * num_sizes * 2 * len(accumulations)  # of those with clipping and freezing
    hold(cases)


@pytest.mark.slow
def test_recomputed_blocks_train_as_one_process_with_and_without_offload():
    cases = run_cases(2, [2], [0.05], offloads=[False, True], recomputes=["all"])
    assert len(cases) == (4 + 2) * 2
    hold(cases)


@pytest.mark.slow
def test_compiled_blocks_of_two_ranks_train_as_one_process():
    cases = run_cases(2, [2], [0.05], recomputes=["none", "all"], compiled=[True])
    assert len(cases) == 4 * 2 * 2
    hold(cases)
