"""Run by a launcher on P ranks: the model on a sequence group beside the same model on one process, case by case.

Prints a line per case on rank 0: its name and the largest relative difference of outputs, loss and any gradient.
"""

import itertools
import json
import sys
from dataclasses import replace

import torch
import torch.distributed as dist

from matey.model.boxes import share_of
from matey.model.prepare import prepare_parts
from matey.model.sequence_group import SequenceGroup
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology, exchange_and_sum, reduce_scatter
from matey.parallel.sequence import DistributedSequenceGroup, share_samples
from matey.train.loss import GRADIENT, NRMSE, LossScale, training_loss
from tests.support.models import VOCABULARY, make_batch, make_model
from tests.support.parts import off, parts_of

SETS = {
    "uniform": ("uniform", ((1, 1, 4, 4),)),
    "mix": ("mix", ((1, 1, 16, 16), (1, 1, 4, 4))),
    "mul": ("mul", ((1, 1, 16, 16), (1, 1, 4, 4))),
    "three levels": ("mix", ((2, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4))),
    "three levels, mul": ("mul", ((2, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4))),
}
SETS_3D = {
    "uniform": ("uniform", ((1, 4, 4, 4),)),
    "mix": ("mix", ((2, 8, 8, 8), (1, 4, 4, 4))),
    "mul": ("mul", ((2, 8, 8, 8), (1, 4, 4, 4))),
    "three levels": ("mix", ((2, 8, 8, 8), (2, 4, 4, 4), (1, 2, 2, 2))),
}
# What one scheme is enough for: how the model is made, how it is trained, and which batches.
OTHERS = {
    "fewer tokens than ranks": ("vit", "uniform", ((1, 1, 8, 8),), {}),
    "short segments, fewer than ranks": ("svit", "uniform", ((1, 1, 8, 8),), {}),
    "a sample on a rank of its own": ("vit", *SETS["uniform"], {}),
    "equal variances": ("vit", *SETS["mix"], {}),
    "drop path": ("avit", *SETS["mix"], {"drop_path": 0.3}),
    "given fields and parameters": ("vit", *SETS["mix"], {"given": ("force",)}),
    "given fields and parameters, axial": ("avit", *SETS["three levels"], {"given": ("force",)}),
    "cells without data": ("vit", *SETS["three levels, mul"], {}),
    "recomputed": ("vit", *SETS["mix"], {"checkpoint_blocks": "every_other"}),
    "gradient loss": ("svit", *SETS["mix"], {"loss": GRADIENT}),
    "gradient loss, three levels": ("vit", *SETS["three levels, mul"], {"loss": GRADIENT}),
    "gradient loss, a sample on a rank of its own": ("vit", *SETS["uniform"], {"loss": GRADIENT}),
    "recomputed and offloaded": ("svit", *SETS["mix"], {"checkpoint_blocks": "all", "offload_activations": True}),
}
SCALES = {"shallow_water": LossScale(), "diffusion_reaction": LossScale()}


def batches_of(dimensions, name, dtype):
    """Two systems on grids of their own, one of which no patch divides; domains that wrap around an axis or two."""
    if "fewer" in name:
        return [make_batch(num_samples=1, frames=2, grid=(1, 8, 8), dtype=dtype)]
    if "of its own" in name:  # from 3 ranks on the others hand over what they decode, and the first gets nothing
        grids = [(1, 8, 8), (1, 8, 8 * max(1, dist.get_world_size() - 1))]
        return [make_batch(num_samples=1, frames=2, grid=grid, dtype=dtype) for grid in grids]
    if name == "equal variances":
        batch = make_batch(num_samples=2, frames=2, grid=(1, 16, 16), dtype=dtype)
        return [replace(batch, history=batch.history.tile(1, 1, 1, 1, 2, 3), target=batch.target.tile(1, 1, 1, 2, 3))]
    if dimensions == 3:
        around_z = make_batch(num_samples=1, frames=2, grid=(8, 16, 8), dtype=dtype)
        return [replace(around_z, periodic=(True, False, True))]
    padded = make_batch(num_samples=1, frames=2, grid=(1, 32, 20), dtype=dtype)
    other = make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, (1, 16, 32), seed=1, dtype=dtype)
    return [replace(padded, periodic=(False, False, True)), replace(other, periodic=(False, True, True))]


def drawn(batches, name):
    """Number the draws, by which drop path tells samples apart; of some cases, the first batch has more to be told."""
    if name == "cells without data":  # of one sample, and of one of two fields
        for batch, field in zip(batches, (slice(None), slice(1)), strict=True):
            for values in (batch.history, batch.target):
                values[0, ..., field, :, 4:20, 6:12] = torch.nan
    if "given" in name:
        first = batches[0]
        given = (
            first.history[:, :1].roll(3, dims=-1).tile(1, 9, 1, 1, 1, 1)
            * torch.arange(1, 10)[:, None, None, None, None]
        )
        batches[0] = replace(first, given_fields=("force",), given=given, parameters={"viscosity": 0.01})
    return [replace(batch, draw=torch.arange(batch.num_samples) + 10 * at) for at, batch in enumerate(batches)]


def run(model, sequence_group, batches, group=None, loss=NRMSE):
    """Return the outputs as one vector, the loss and the gradient of every parameter."""
    model.sequence_group = sequence_group
    model.zero_grad()
    # As in training, no rank has the whole fields.
    if group is not None and sequence_group.size > 1:
        share = share_of(model.config, sequence_group.ranks)
        batches = prepare_parts(parts_of(batches, share), model.config, sequence_group.ranks, sequence_group.exchange)
    forecasts = model(batches)
    loss, _ = training_loss(forecasts, sequence_group, SCALES, loss)
    loss.backward()
    output = torch.cat([sequence_group.reduce(forecast.frame()).detach().flatten() for forecast in forecasts])
    gradients = [parameter.grad for parameter in model.parameters()]
    if group is not None:
        for gradient in gradients:
            dist.all_reduce(gradient, group=group)
    return [output, loss.detach(), *(gradient.clone() for gradient in gradients)]


def kinds():
    """All kinds of cases: dimensions, scheme, name and what this stands for."""
    for dimensions, sets in ((2, SETS), (3, SETS_3D)):
        for scheme, name in itertools.product(("vit", "svit", "avit"), sets):
            yield dimensions, scheme, name, *sets[name], {}
    for name, (scheme, *how) in OTHERS.items():
        yield 2, scheme, name, *how


def cases(heads, every, first):
    """Of so many heads every so many of the kinds, beginning elsewhere for each, so that they have all of them between them."""
    for number, head in enumerate(heads):
        yield from ((head, *kind) for at, kind in enumerate(kinds()) if (at + number + first) % every == 0)


def main(heads, dtype, every=1, network="matey"):
    start_processes(find_environment(), timeout=120, threads=1)
    rank, size = dist.get_rank(), dist.get_world_size()
    sequence_groups = {head: DistributedSequenceGroup(Topology(rank, size, size, head)) for head in heads}
    first = size // 2 + (dtype == torch.float32)  # two ranks have other cases than four, and both precisions
    for head, dimensions, scheme, name, token_set, patches, how in cases(heads, every, first):
        told = {"fields": (*VOCABULARY, *how["given"]), "parameters": ("viscosity",)} if "given" in how else {}
        settings = {"set": token_set, "scheme": scheme, "num_heads": head, "refine": 0.4}
        of_model = {key: how[key] for key in ("drop_path", "given") if key in how}
        model = make_model(patches, dtype, network=network, **settings, **told, **of_model)
        if told:
            torch.nn.init.normal_(model.told.contract.weight, std=0.1)
        model.train()
        batches = drawn(batches_of(dimensions, name, dtype), name)
        for setting in how.keys() - of_model.keys() - {"loss"}:
            setattr(model, setting, how[setting])
        loss = how.get("loss", NRMSE)
        ours = run(model, sequence_groups[head], batches, sequence_groups[head].group, loss)
        if rank == 0:
            model.checkpoint_blocks, model.offload_activations = "none", False
            expected = run(model, SequenceGroup(), batches, loss=loss)
            # What no one has a gradient of would be alike for nothing.
            parts = ("conditions", "told", "cells_before", "cells_after", "maps_before")
            assert all(weight.grad.any() for part, weight in model.named_parameters() if part.startswith(parts)), name
            errors = torch.stack([off(a, b) for a, b in zip(ours, expected, strict=True)])
            tokens = sum(int(model.count_tokens(batch).sum()) for batch in batches)
            case = f"{dimensions}-D, {head} heads, {scheme}, {name}, {tokens} tokens"
            sys.stdout.write(f"case {json.dumps([case, errors.max().item()])}\n")
    parts, counts = torch.randn(4 * size - 2, 3, dtype=dtype) + rank, [4] * (size - 1) + [2]
    scattered = [
        scatter(parts, counts, counts[rank], dist.group.WORLD) for scatter in (reduce_scatter, exchange_and_sum)
    ]
    errors = [torch.zeros(())] * size
    dist.all_gather_object(errors, off(*scattered))
    if rank == 0:
        sys.stdout.write(f"case {json.dumps(['both ways to scatter sums', torch.stack(errors).max().item()])}\n")
    model, batch = make_model(), make_batch(num_samples=1, grid=(1, 8, 8), dtype=torch.float64)
    share_samples(model, 1)  # each has samples of its own
    assert model.predict(batch).shape == batch.last.shape
    share_samples(model)  # all but one have no cells
    model(batch).loss.backward()
    stop_processes()


if __name__ == "__main__":
    main([int(head) for head in sys.argv[1].split(",")], getattr(torch, sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
