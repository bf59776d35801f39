"""Stochastic depth."""

from dataclasses import replace

import pytest
import torch

from matey.model.drop_path import keep_scale, uniform_hash
from matey.train.loss import LossScale, training_loss
from tests.support.laws import law
from tests.support.models import make_batch, make_model


def test_hashes_are_uniform_and_neighbours_are_strangers():
    values = uniform_hash(torch.arange(100_000))
    counts = torch.histc(values, bins=20, min=0, max=1)
    assert ((counts - 5000).abs() < 5 * 5000**0.5).all()
    assert torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1].abs() < 0.02
    assert (values >= 0).all() and (values < 1).all()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_residual_keeps_its_size_on_average(rate):
    scale = keep_scale(torch.arange(20_000), 3, rate)
    assert scale.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert scale.mean().item() == pytest.approx(1, abs=0.03)


def losses(model, batch):
    return training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})[1]


def test_what_a_sample_skips_depends_on_its_draw_and_not_on_the_batch_around_it():
    model = make_model(drop_path=0.5, num_blocks=4).train()
    batch = replace(make_batch(num_samples=4, dtype=torch.float64), draw=torch.tensor([7, 8, 9, 10]))
    together = losses(model, batch)
    parts = []
    for sample in (slice(0, 1), slice(1, 4)):
        own = {name: getattr(batch, name)[sample] for name in ("history", "target", "lead_time", "draw")}
        parts.append(losses(model, replace(batch, **own)))
    assert torch.allclose(together, torch.cat(parts), rtol=1e-10)
    others = losses(model, replace(batch, draw=batch.draw + 100))
    assert not torch.allclose(together, others)
    model.eval()
    assert torch.equal(losses(model, batch), losses(model, replace(batch, draw=batch.draw + 100)))


def forward_and_backward(checkpoint_blocks, offload):
    """Gradients, the blocks called in the backward pass, and those whose input is kept where it was computed."""
    batch = replace(make_batch(dtype=torch.float64), draw=torch.tensor([1, 2]))
    model = make_model(drop_path=0.5, num_blocks=4).train()
    model.checkpoint_blocks, model.offload_activations = checkpoint_blocks, offload
    called, given, kept = [], [], set()
    for number, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, inputs, number=number: called.append(number))
        block.register_forward_pre_hook(
            lambda _, inputs: given.append(inputs[0])
        )  # alive, so that none takes its place

    def keep(tensor):
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})
    assert called == [0, 1, 2, 3]
    on_device = [number for number, tensor in enumerate(given) if tensor.data_ptr() in kept]
    loss.backward()
    return [parameter.grad for parameter in model.parameters()], sorted(called[4:]), on_device


@pytest.mark.parametrize(("checkpoint_blocks", "again"), [("all", [0, 1, 2, 3]), ("every_other", [0, 2])])
@law("offload", [False, True], quick=[True])
def test_recomputed_blocks_with_offloaded_inputs_give_the_same_gradients(checkpoint_blocks, again, offload):
    expected, none, on_device = forward_and_backward("none", offload=False)
    assert none == [] and on_device == [0, 1, 2, 3]
    gradients, called, on_device = forward_and_backward(checkpoint_blocks, offload)
    assert called == again
    assert on_device == [number for number in range(4) if not (offload and number in again)]
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


def test_offloaded_blocks_are_trained_where_everything_before_them_is_frozen():
    model, batch = make_model().train(), make_batch(dtype=torch.float64)
    gradients = []
    for checkpoint_blocks, offload in (("none", False), ("all", True)):
        model.checkpoint_blocks, model.offload_activations = checkpoint_blocks, offload
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.startswith("blocks"))
            weight.grad = None
        training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})[0].backward()
        gradients.append([weight.grad for weight in model.blocks.parameters()])
    for expected, found in zip(*gradients, strict=True):
        assert torch.allclose(expected, found, rtol=1e-10)
