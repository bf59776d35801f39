"""Muon beside a dense one: what is stepped by it, how exact its steps are, and what it refuses."""

import json

import pytest
import torch

from matey.config import ConfigError, FinetuneSection, TrainSection
from matey.config.schema import FINETUNE_MODES
from matey.parallel.engine import build_engine, parameter_groups
from matey.parallel.master import matrices_of_blocks, orthogonalized
from tests.parallel.muon_cases import ENGINES
from tests.support.models import make_model
from tests.support.programs import cases_of, start_ranks

# One engine of each kind; the others with the slow tests.
QUICK = ("stage 0", "stage 1", "stage 3 in groups", "stage 2, offloaded", "bf16, stage 1")


@pytest.mark.parametrize(
    ("num_ranks", "engines"),
    [
        (2, QUICK),
        pytest.param(2, [name for name in ENGINES if name not in QUICK], marks=pytest.mark.slow),
        pytest.param(1, [*ENGINES], marks=pytest.mark.slow),
    ],
    ids=["two", "two_others", "one_all"],
)
def test_steps_are_those_of_a_dense_muon_with_every_stage(num_ranks, engines):
    result = start_ranks(num_ranks, "-m", "tests.parallel.muon_cases", json.dumps(engines), timeout=300)
    cases = dict(cases_of(result))
    assert {name.rpartition(", ")[0] for name in cases} == {*engines}
    for name, (losses, expected, off) in cases.items():
        is_half = "bf16" in name
        assert losses == pytest.approx(expected, rel=1e-2 if is_half else 1e-6), name
        # Muon makes steps of full size of the rounding in weak directions, which in bfloat16 is a hundredth of a gradient.
        assert off < (0.6 if is_half else 3e-4), (name, off)


@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96)])
def test_a_step_is_that_of_pytorchs_muon_in_its_precision(shape):
    torch.manual_seed(0)
    weight, gradient = torch.randn(shape), torch.randn(shape)
    theirs = torch.nn.Parameter(weight.clone())
    theirs.grad = gradient.clone()
    torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1).step()
    ours = weight * (1 - 0.02 * 0.1) - 0.02 * orthogonalized(gradient, torch.bfloat16)
    # A bfloat16 has eight bits, and the two round in other places.
    assert (ours - theirs).norm() < 0.05 * (weight - theirs).norm()


def test_matrices_of_blocks_have_groups_of_their_own_with_the_factors_of_all():
    model = make_model()
    train = TrainSection(
        steps=1,
        learning_rate=1e-3,
        weight_decay=0.1,
        layer_decay=0.5,
        optimizer="muon",
        muon={"learning_rate": 0.01, "momentum": 0.9},
        groups={"blocks": {"learning_rate": 2e-3, "weight_decay": 0.2}},
    )
    groups = parameter_groups(model, train)
    of = {id(p): group for group in groups for p in group["params"]}
    found = {name: of[id(p)] for name, p in model.named_parameters()}
    assert {name for name, group in found.items() if "momentum" in group} == set(matrices_of_blocks(model))
    # Two blocks: the first lies two layers below what tokens give. The blocks' own rate is twice the run's.
    first, second = (found[f"blocks.{number}.mlp.expand.weight"] for number in (0, 1))
    assert (first["factor"], second["factor"]) == pytest.approx((10 * 2 / 4, 10 * 2 / 2))
    assert first["momentum"] == 0.9 and first["weight_decay"] == 0.2
    assert found["blocks.1.mlp.expand.bias"]["factor"] == pytest.approx(2 / 2)
    assert found["giving.1.weight"]["factor"] == 1


def test_where_no_matrix_of_blocks_is_trained_all_groups_are_those_of_adamw():
    model = make_model(dtype=torch.float32)
    FINETUNE_MODES["lora"](model, FinetuneSection(lora_rank=4))
    by_muon, by_adamw = (parameter_groups(model, TrainSection(steps=1, optimizer=name)) for name in ("muon", "adamw"))
    settings = [[(group["name"], len(group["params"])) for group in groups] for groups in (by_muon, by_adamw)]
    assert settings[0] == settings[1]


@pytest.mark.parametrize(
    "more",
    [
        {"offload_optimizer": {"device": "nvme", "nvme_path": "/tmp"}},
        {"offload_optimizer": {"device": "cpu", "ratio": 0.5}},
        {"offload_optimizer": {"device": "cpu"}, "zenflow": {"topk_ratio": 0.1}},
    ],
)
def test_a_state_out_of_reach_is_refused_in_a_sentence(more):
    tree = {"zero_optimization": {"stage": 3, **more}}
    words = "set offload_optimizer.device to 'cpu' without these"
    with pytest.raises(ConfigError, match=words):
        build_engine(make_model(), TrainSection(steps=1, optimizer="muon"), tree)


def test_weights_in_bfloat16_alone_are_refused_in_a_sentence():
    tree = {
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        "bf16": {"enabled": True, "bf16_master_weights_and_grads": True},
    }
    with pytest.raises(ConfigError, match="keeps weights in bfloat16, in which .* Muon's steps get lost"):
        build_engine(make_model(), TrainSection(steps=1, optimizer="muon"), tree)
