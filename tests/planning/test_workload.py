"""Operations and tokens, beside those of a model that runs."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from matey import MateyModel
from matey.benchmark.step import Case
from matey.config import ConfigError, load_config
from matey.planning.memory import read_bytes
from matey.planning.operations import count_kernels, count_operations
from matey.planning.workload import Assumed, Workload, load_workload
from matey.train.loss import LossScale, training_loss
from tests.support.laws import law
from tests.support.models import samples_of
from tests.support.paths import ROOT

SETS = [("uniform", (8,)), ("mix", (32, 8)), ("mul", (32, 8))]
NO_KERNEL = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze"}
NO_KERNEL |= {"detach", "split", "split_with_sizes", "unbind", "alias", "as_strided", "unfold", "empty", "empty_like"}


class KernelCounter(TorchDispatchMode):
    """Counts operations that are more than a view."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in NO_KERNEL
        return function(*args, **(kwargs or {}))


def workload_of(case):
    model, batch = case.make_model(), case.make_batch()
    return model, batch, Workload(model.config, tuple(samples_of(batch, model.config)))


@pytest.mark.parametrize(
    ("network", "scheme"), [("matey", "vit"), ("matey", "avit"), ("paper", "svit"), ("cells", "vit")]
)
@law(("tokens", "patches"), SETS, quick=SETS[2:])
@law("grid", [(64, 96), (24, 32, 16)], quick=[(64, 96)])
def test_operations_are_those_that_a_counter_sees(network, scheme, tokens, patches, grid):
    patches = patches if len(grid) == 2 else [size // 2 for size in patches]
    case = Case("micro", scheme, tokens, tuple(patches), grid=grid, batch=2, fields=3, network=network)
    model, batch, workload = workload_of(case)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model([batch])
    assert 2 * workload.forward_operations == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert workload.operations.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert 2 * workload.num_tokens == int(model.count_tokens(batch).sum())


@law("frames", [1, 6], quick=[6])
def test_given_fields_are_seen_and_not_decoded(frames):
    case = Case("micro", tokens="mix", patches=(32, 8), grid=(64, 96), batch=2, fields=3)
    config = case.make_config()
    config = type(config).from_dict(
        config.to_dict() | {"fields": [*config.fields, "force", "depth"], "given": ["force", "depth"]}
    )
    given = torch.rand(2, frames, 2, 1, 64, 96)
    batch = replace(case.make_batch(), given_fields=("force", "depth"), given=given)
    workload = Workload(config, tuple(samples_of(batch, config)))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        MateyModel(config)([batch])
    assert 2 * workload.forward_operations == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert read_bytes(workload, 2, 1) == batch.history.nbytes + batch.target.nbytes + given.nbytes


@pytest.mark.parametrize("network", ["matey", "paper"])
@law(("scheme", "grid"), [("vit", (64, 64)), ("avit", (64, 64)), ("vit", (32, 32, 32))], quick=[("avit", (64, 64))])
@law(("tokens", "patches"), SETS[:2], quick=SETS[1:2])
def test_kernels_are_those_that_start_to_a_quarter(network, scheme, grid, tokens, patches):
    case = Case("micro", scheme=scheme, tokens=tokens, patches=patches, grid=grid, batch=1, network=network)
    model, batch = case.make_model(), case.make_batch()
    with KernelCounter() as forward:
        loss = training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})[0]
    with KernelCounter() as backward:
        loss.backward()
    planned = count_kernels(model.config, len(model.keys))
    assert planned.block_forward + planned.outside_forward == pytest.approx(forward.count, rel=0.25)
    assert planned.block_backward + planned.outside_backward == pytest.approx(backward.count, rel=0.25)


def test_tokens_are_counted_on_windows_of_the_data(run_yaml):
    run = load_config(run_yaml())
    workload = load_workload(run, num_samples=8)
    assert len(workload.samples) == 8
    assert 8 < workload.num_tokens < workload.num_uniform_tokens == 2 * 4 * 4


def test_of_large_data_few_windows_are_read(run_yaml, monkeypatch):
    run = load_config(run_yaml())
    num_bytes = load_workload(run, num_samples=8).samples[0].num_bytes
    monkeypatch.setattr("matey.planning.workload.MOST_BYTES", 3 * num_bytes)
    assert len(load_workload(run, num_samples=8).samples) == 3


def test_of_data_that_is_not_at_hand_a_share_of_the_patches_is_split(run_yaml):
    run = load_config(run_yaml(), ["model.fields=[water_height]", "data.sets=[{path: a}, {path: b, weight: 3}]"])
    workload = load_workload(run, Assumed(((1, 32, 32), (1, 64, 64)), refined=0.25, num_fields=1))
    tokens = {sample.system: sample.num_tokens for sample in workload.samples}
    assert tokens == {"a": 2 * (12 + 4 * 4), "b": 2 * (48 + 16 * 4)}
    assert sum(sample.system == "b" for sample in workload.samples) == 24
    with pytest.raises(ConfigError, match="set model.fields"):
        load_workload(load_config(run_yaml()), Assumed())


def test_a_run_waits_for_the_ranks_with_most_tokens(run_yaml):
    run = load_config(run_yaml(), ["model.fields=[water_height]", "data.sets=[{path: a}, {path: b}]"])
    even = load_workload(run, Assumed(((1, 32, 32),)))
    mixed = load_workload(run, Assumed(((1, 32, 32), (1, 64, 64))))
    assert even.imbalance(736, 2) == 1
    assert 1.3 < mixed.imbalance(736, 2) < 2
    assert mixed.imbalance(736, 32) < mixed.imbalance(736, 2)


def test_parameters_of_a_model_without_storage_are_those_of_the_paper_preset():
    run = load_config(ROOT / "launch" / "runs" / "paper_pretrain_vit_b.yaml")
    workload = load_workload(run, Assumed(), num_samples=2)
    assert 85e6 < count_operations(workload.config).num_parameters < 95e6
