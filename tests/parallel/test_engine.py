"""What the engine is built from."""

import pytest

from matey.config import ConfigError, TrainSection
from matey.parallel.engine import build_engine, parameter_groups
from tests.conftest import make_model


def test_weight_decay_acts_on_matrices_of_linear_maps_only():
    model = make_model()
    decayed, plain = parameter_groups(model, TrainSection(steps=1, weight_decay=0.1))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    plain_names = [names[id(parameter)] for parameter in plain["params"]]
    assert all(
        name.endswith("bias") or "norm" in name or name.endswith(("field_weight", "window_weight"))
        for name in plain_names
    )
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"zero_optimization": {"stagee": 1}},
            "zero_optimization.stagee: DeepSpeed has no such key. Did you mean 'stage'",
        ),
        ({"zero_optimization": {"stage": 7}}, "zero_optimization.stage: "),
        ({"bf16": {"enabled": True}}, "bf16 with ZeRO stage 0"),
        ({"fp16": {"enabled": True}, "zero_optimization": {"stage": 1}}, "fp16 is not supported"),
    ],
)
def test_a_deepspeed_configuration_that_cannot_work_is_refused_before_training(tree, message):
    with pytest.raises(ConfigError, match=message):
        build_engine(make_model(), TrainSection(steps=1), tree)
