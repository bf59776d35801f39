"""Planned memory beside what autograd keeps."""

from dataclasses import replace

import pytest
import torch

from matey.benchmark.step import Case
from matey.config import ConfigError, load_config
from matey.train.loss import LossScale, training_loss
from matey.train.network import activation_bytes, group_size
from tests.support.laws import law


def kept_bytes(case):
    """Bytes of all storages that the backward pass of a case waits for, parameters left out, and its number of tokens."""
    model, batch = case.make_model().train(), case.make_batch()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})
    return sum(storages.values()), int(model.count_tokens(batch).sum()), model


@law("scheme", ["vit", "svit", "avit"], quick=["vit"])
def test_planned_activations_are_those_kept_within_fifteen_percent(scheme):
    case = Case("Ti", scheme=scheme, grid=(64, 64), batch=1)
    kept, num_tokens, model = kept_bytes(case)
    assert activation_bytes(model.config, num_tokens, len(model.keys)) == pytest.approx(kept, rel=0.15)


def test_checkpointed_blocks_are_planned_to_keep_their_input_and_one_block_at_work():
    config = replace(Case()).make_model().config
    plain, every_other, everything = (activation_bytes(config, 1000, 1, how) for how in ("none", "every_other", "all"))
    of_neighbours = 9 + 2
    everywhere = 12 + 17 + of_neighbours + 4 * of_neighbours  # inputs, a block at work, and four maps
    assert everything < every_other < plain and everything == 1000 * 192 * 4 * everywhere


def test_the_smallest_group_that_fits_is_taken_among_the_divisors(run_yaml):
    run = load_config(run_yaml(), ["parallel.sequence_parallel_size=auto", "parallel.memory_limit=1"])
    config = Case().make_model().config
    per_token = activation_bytes(config, 1, 1)
    for gibibytes, expected in ((1, 1), (2.5, 3)):
        assert group_size(run, config, lambda size=gibibytes: size * 2**30 // per_token, 4, 6) == expected
    with pytest.raises(ConfigError, match="6 ranks with parallel.memory_limit .* cannot hold"):
        group_size(run, config, lambda: 10 * 2**30 // per_token, 4, 6)
