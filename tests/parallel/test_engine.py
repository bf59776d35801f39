"""What the engine is built from."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from matey.config import ConfigError, TrainSection
from matey.model.parts import part_of
from matey.parallel.engine import build_engine, is_bf16, mark_not_finite, parameter_groups
from tests.support.models import make_model
from tests.support.programs import cases_of, clean_environment, in_background, start, start_ranks


def test_weight_decay_acts_on_matrices_of_linear_maps_and_kernels_of_cells_only():
    model = make_model()
    decayed, plain = parameter_groups(model, TrainSection(steps=1, weight_decay=0.1))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kernels = {name for name in names.values() if name.endswith("kernels")}
    assert kernels == {names[id(parameter)] for parameter in decayed["params"] if parameter.ndim != 2}
    plain_names = [names[id(parameter)] for parameter in plain["params"]]
    ends = ("bias", "near")  # and weights of windows
    assert all(name.endswith(ends) or "norm" in name or part_of(name).endswith("_fields") for name in plain_names)
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_norms_that_are_not_finite_are_marked_in_place():
    norms = torch.tensor([1.0, 0.0, torch.nan, torch.inf, -torch.inf, 1e38])
    mark_not_finite(norms, norms.device)
    assert torch.equal(norms, torch.tensor([1.0, 0.0, -1.0, -1.0, -1.0, 1e38]))


def test_parts_have_rates_of_their_own_and_those_of_blocks_fall_towards_the_input():
    model = make_model()
    model.position.requires_grad_(False)
    train = TrainSection(
        steps=1,
        learning_rate=1e-3,
        weight_decay=0.1,
        layer_decay=0.5,
        groups={"blocks": {"learning_rate": 2e-3, "weight_decay": 0}, "cells_fields": {"learning_rate": 4e-3}},
    )
    rates = {id(p): (g["factor"], g["weight_decay"]) for g in parameter_groups(model, train) for p in g["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("position") for name in found)
    # Two blocks: the input lies three layers below what tokens give.
    assert found["embeddings.0.stages.0.weight"] == (0.125, 0.1)
    assert found["lead_time.expand.bias"] == (0.125, 0.0)
    assert found["blocks.0.mlp.expand.weight"] == (0.5, 0.0)
    assert found["blocks.1.mlp.expand.weight"] == (1.0, 0.0)
    assert found["giving.1.weight"] == (1.0, 0.1)
    assert found["conditions.contract.weight"] == (0.125, 0.1)
    assert found["cells_after.expand.weight"] == (1.0, 0.1)
    assert found["cells_after.field_stencil"] == (4.0, 0.0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_rates_and_decays_that_come_to_equal_merge_no_groups(optimizer, layer_decay):
    model = make_model()
    parts = {"blocks": {"learning_rate": 2e-3, "weight_decay": 0.2}, "lead_time": {"weight_decay": 0.1}}
    kept = {"steps": 1, "optimizer": optimizer, "layer_decay": layer_decay, "groups": parts}
    seen = []
    for rate, decay in ((1e-3, 0.3), (2e-3, 0.1), (4e-3, 0.2), (2e-3, 0.0)):
        train = TrainSection(learning_rate=rate, weight_decay=decay, **kept)
        seen.append([[id(parameter) for parameter in group["params"]] for group in parameter_groups(model, train)])
    assert seen[1:] == seen[:1] * 3


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"zero_optimization": {"stagee": 1}}, "stagee: DeepSpeed has no such key. Did you mean 'stage'"),
        ({"bf16": {"enabled": True}}, "bf16 with ZeRO stage 0"),
        ({"fp16": {"enabled": True}, "zero_optimization": {"stage": 1}}, "fp16.enabled is not supported"),
        ({"zero_optimization": {"stage": 1, "round_robin_gradients": True}}, "round_robin_gradients is not supported"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer needs stage 1 or above"),
    ],
)
def test_a_deepspeed_configuration_that_cannot_work_is_refused_before_training(tree, message):
    with pytest.raises(ConfigError, match=message):
        build_engine(make_model(), TrainSection(steps=1), tree)


def test_a_moving_average_of_weights_in_bfloat16_is_refused():
    tree = {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}, "zero_optimization": {"stage": 1}}
    with pytest.raises(ConfigError, match="in which a moving average .train.ema. soon stands still"):
        build_engine(make_model(), TrainSection(steps=1, ema=0.999), tree)


@pytest.fixture(scope="module")
def on_two_ranks():
    """What two ranks find, of every way to reduce and of whole weights."""
    result = start_ranks(2, "-m", "tests.parallel.whole_cases")
    return {kind: dict(cases_of(result, kind)) for kind in ("accumulation", "whole", "type")}


def test_equal_micro_batches_have_the_gradient_of_one_with_every_way_to_reduce(on_two_ranks):
    cases = on_two_ranks["accumulation"]  # alone, what stage 1 reduces too early is not yet wrong
    assert len(cases) == 5
    for name, (one, three) in cases.items():
        assert three == pytest.approx(one, rel=1e-2 if "bf16" in name else 1e-5), name
    assert cases["bf16, stage 1"][1] == pytest.approx(cases["bf16, stage 2"][1], rel=1e-2)


def test_bf16_gradients_are_reduced_in_float32_unless_the_json_says_otherwise(on_two_ranks):
    assert len(on_two_ranks["type"]) == 5 and {*on_two_ranks["type"].values()} == {"torch.float32"}
    for path in Path("ds_configs").glob("*.json"):
        tree = json.loads(path.read_text())
        assert not is_bf16(tree) or tree["communication_data_type"] == "fp32", path


def test_the_weights_are_put_together_on_rank_zero_alone(on_two_ranks):
    assert len(on_two_ranks["whole"]) == 4 and not any(on_two_ranks["whole"].values())


COMPILES = """
from torch.utils.cpp_extension import load_inline
from matey.parallel.engine import wait_for_compilations
wait_for_compilations(2)
load_inline("async_io", "int one() { return 1; }", functions="one")
"""


@pytest.mark.slow
def test_a_killed_compilation_is_done_again(tmp_path):
    environment = clean_environment() | {"TORCH_EXTENSIONS_DIR": str(tmp_path)}
    with in_background([sys.executable, "-c", COMPILES], environment) as process:
        lock, until = tmp_path / "async_io" / "lock", time.monotonic() + 120
        while not lock.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
    assert lock.exists()
    result = start([sys.executable, "-c", COMPILES], env=environment)
    assert result.returncode == 0 and not lock.exists(), result.stderr
