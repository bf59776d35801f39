"""Attention schemes against textbook implementations, on adaptive tokens, and with compiled MLPs."""

import os
from dataclasses import replace

import psutil
import pytest
import torch
from einops import rearrange

from matey.model.blocks import Block, keep_scale, keys_of, scheme_keys
from matey.model.embedding import rotation_of
from matey.model.sequence_group import BlockPlan, SequenceGroup
from matey.parallel.engine import compile_blocks
from matey.tokens.layout import layout_tokens
from matey.tokens.segments import segment
from matey.train.loss import LossScale, training_loss
from tests.support.laws import law
from tests.support.models import make_batch, make_config, make_model
from tests.support.programs import clean_environment
from tests.support.runs import fail, metrics, pretrain, succeed

B, T, Z, Y, X = 2, 3, 2, 4, 5
PATCH = (1, 2, 4, 4)
LAYOUT = layout_tokens([(B, T, 2 * Z, 4 * Y, 4 * X)], [[]], [PATCH])
TEXTBOOK = {
    # the axes that are a batch, and those that attend, per attention of a block
    "vit": ["b z y x t e -> b (z y x t) e"],
    "svit": ["b z y x t e -> (b z y x) t e", "b z y x t e -> (b t) (z y x) e"],
    "avit": [
        "b z y x t e -> (b z y x) t e",
        "b z y x t e -> (b t y x) z e",
        "b z y x t e -> (b t z x) y e",
        "b z y x t e -> (b t z y) x e",
    ],
}


def turned_by_complex_numbers(values, centre):
    """Queries or keys ``(n, h, d)``, of which two channels each are a complex number that turns with the place."""
    half = values.shape[-1] // 2
    numbers = torch.complex(values[..., :half], values[..., half:])
    angle = torch.zeros(len(values), half, dtype=values.dtype)
    for number, axis in enumerate((1, 2, 3)):  # a head of eight channels has a pair for each axis, and one more
        angle[:, number] = 2 * torch.pi * centre[:, axis] / (1 / 64)
    numbers = numbers * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([numbers.real, numbers.imag], dim=-1)


def textbook(block, tokens, patterns, centre=None):
    """The same block on the dense grid ``(b, z, y, x, t, e)``, softmax written out; with rotary positions from ``centre``."""
    sizes = {"b": B, "z": Z, "y": Y, "x": X, "t": T}
    for attention, pattern in zip(block.attentions, patterns, strict=True):
        grid, sequences = pattern.split(" -> ")
        qkv = attention.qkv(attention.norm(tokens))
        if centre is not None:
            *both, v = rearrange(qkv.flatten(0, -2), "n (three h d) -> three n h d", three=3, h=attention.num_heads)
            both = [turned_by_complex_numbers(each, centre) for each in both]
            qkv = rearrange([*both, v], "three n h d -> n (three h d)").view(qkv.shape)
        q, k, v = (
            rearrange(rearrange(part, pattern), "s l (h d) -> s h l d", h=attention.num_heads)
            for part in qkv.chunk(3, -1)
        )
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        gathered = rearrange(weights @ v, "s h l d -> s l (h d)")
        tokens = tokens + attention.out(rearrange(gathered, f"{sequences} -> {grid}", **sizes))
    return tokens + block.mlp(tokens)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("scheme", TEXTBOOK)
def test_on_a_uniform_grid_a_scheme_is_its_textbook_form(scheme, rotary):
    keys = scheme_keys(scheme, [PATCH])
    torch.manual_seed(0)
    block = Block(24, 3, 48, len(keys)).double()
    tokens = torch.randn(LAYOUT.num_tokens, 24, dtype=torch.float64)
    rotation = rotation_of(LAYOUT.centre, make_config([PATCH]), tokens.dtype)
    plan = BlockPlan.in_place([segment(key(LAYOUT)) for key in keys])
    ours = block(tokens, SequenceGroup(), plan, rotations=[rotation] * len(keys) if rotary else None)
    dense = rearrange(tokens, "(b z y x t) e -> b z y x t e", b=B, z=Z, y=Y, x=X)
    dense = textbook(block, dense, TEXTBOOK[scheme], LAYOUT.centre if rotary else None)
    expected = rearrange(dense, "b z y x t e -> (b z y x t) e")
    assert torch.allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("scheme", TEXTBOOK)
def test_children_attend_among_themselves_as_a_uniform_grid_of_their_own(scheme):
    patches = [(1, 2, 8, 8), (1, 1, 4, 4)]
    splits = torch.zeros(1, 2, 3, 4, dtype=torch.bool)
    splits[0, 0, 1, 2] = splits[0, 1, 2, 0] = True
    layout = layout_tokens([(1, T, 4, 24, 32)], [[splits]], patches, keep_parents=True)
    children = layout_tokens([(1, T, 2, 8, 8)], [[]], patches[1:])
    keys, alone_keys = scheme_keys(scheme, patches), scheme_keys(scheme, patches[1:])
    if len(keys) != len(alone_keys):  # z is no axis of the children's patches alone
        alone_keys = keys
    torch.manual_seed(0)
    block = Block(24, 3, 48, len(keys)).double()
    tokens = torch.randn(layout.num_tokens, 24, dtype=torch.float64)
    together = block(tokens, SequenceGroup(), BlockPlan.in_place([segment(key(layout)) for key in keys]))
    for family in layout.family.unique()[1:]:
        own = layout.family == family
        alone = block(tokens[own], SequenceGroup(), BlockPlan.in_place([segment(key(children)) for key in alone_keys]))
        assert torch.allclose(together[own], alone, atol=1e-12)


def test_a_scheme_without_keys_or_with_too_few_is_refused(monkeypatch):
    schemes = {"none": lambda patches: (), "few": lambda patches: (lambda layout: layout.row[1:],)}
    monkeypatch.setattr("matey.model.blocks.SCHEMES", schemes)
    with pytest.raises(ValueError, match="'none' returned no key"):
        keys_of(LAYOUT, "none", [PATCH])
    with pytest.raises(ValueError, match=rf"'few' returned keys .*one for each token, \({LAYOUT.num_tokens},\)"):
        keys_of(LAYOUT, "few", [PATCH])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_residual_keeps_its_size_on_average_and_neighbours_are_strangers(rate):
    scale = keep_scale(torch.arange(20_000), 3, rate)
    assert scale.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert scale.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.corrcoef(torch.stack([scale[:-1].flatten(), scale[1:].flatten()]))[0, 1].abs() < 0.03


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


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss, _ = training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.slow
@pytest.mark.processes
def test_one_compilation_gives_losses_and_gradients_of_all_blocks_and_lengths():
    batches = [make_batch(num_samples=number, dtype=torch.float64, grid=(1, 16, 24)) for number in (1, 3)]
    model = make_model(num_blocks=3).train()
    expected = [loss_and_gradients(model, batch) for batch in batches]
    names = [*model.state_dict()]
    compile_blocks(model, "cpu")
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
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["matey.lock"]


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_and_errors_of_another_that_goes_on_with_it(run_yaml, tmp_path):
    found = []
    for is_compiled in (False, True):
        succeed(pretrain(run_yaml(train={"compile": is_compiled}), timeout=900))
        found.append([[*metrics(tmp_path / "run", key).values()] for key in ("loss", "valid_vrmse")])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    longer = run_yaml(train={"compile": False, "steps": len(found[0][0]) + 2})
    succeed(pretrain(longer, "--resume", timeout=900))  # what a compiled run saved
    assert len(metrics(tmp_path / "run", "loss")) > len(found[0][0])
