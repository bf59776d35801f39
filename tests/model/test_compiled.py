"""Blocks whose MLPs are compiled."""

import os
import shutil

import psutil
import pytest
import torch

from matey.train.loss import LossScale, training_loss
from tests.support.models import make_batch, make_model
from tests.support.programs import clean_environment
from tests.support.runs import fail, metrics, pretrain, succeed


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss, _ = training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.processes
def test_one_compilation_gives_losses_and_gradients_of_all_blocks_and_lengths():
    batches = [make_batch(num_samples=number, dtype=torch.float64, grid=(1, 16, 24)) for number in (1, 3)]
    model = make_model(num_blocks=3).train()
    expected = [loss_and_gradients(model, batch) for batch in batches]
    names = [*model.state_dict()]
    model.compile_blocks("cpu")
    found = [loss_and_gradients(model, batches[0])]
    with torch.compiler.set_stance("fail_on_recompile"):
        found.append(loss_and_gradients(model, batches[1]))
        model.checkpoint_blocks = "all"
        found.append(loss_and_gradients(model, batches[1]))
    assert [*model.state_dict()] == names
    for ours, theirs in zip(found, [*expected, expected[1]], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    children = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not any("inductor" in words for words in children), children


@pytest.mark.slow
def test_a_run_that_cannot_compile_says_so_before_it_starts(run_yaml, tmp_path):
    env = {**clean_environment(), "CXX": os.devnull, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = pretrain(run_yaml(train={"compile": True}), env=env, anew=True)
    fail(result, "train.compile needs a compiler that works here", "or set train.compile to false")
    assert not (tmp_path / "run").exists()


def numbers(folder):
    return [[*metrics(folder, key).values()] for key in ("loss", "valid_nrmse")]


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_and_errors_of_another_also_when_it_goes_on(run_yaml, tmp_path):
    run, saved, found = tmp_path / "run", tmp_path / "saved", []
    for is_compiled in (False, True):
        succeed(pretrain(run_yaml(train={"compile": is_compiled}), timeout=900))
        found.append(numbers(run))
    run.rename(saved)
    longer = run_yaml(train={"compile": True, "steps": len(found[0][0]) + 2})
    for is_compiled in ("true", "false"):  # what a compiled run saved is loaded by either
        shutil.copytree(saved, run)
        succeed(pretrain(longer, "--resume", "--set", f"train.compile={is_compiled}", timeout=900))
        found.append(numbers(run))
        shutil.rmtree(run)
    plain, compiled, on_compiled, on_plain = found
    for one, other in (*zip(plain, compiled, strict=True), *zip(on_compiled, on_plain, strict=True)):
        assert one == pytest.approx(other, rel=1e-5)
    assert len(on_plain[0]) > len(plain[0])
