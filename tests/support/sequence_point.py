"""Measures memory and exchanges of a step on a number of ranks, each in a process of its own, for tests of what ranks share.

Rank 0 prints a line of JSON.
"""

import json
import statistics
import sys

import torch

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import count_traffic, stop_counting, take_traffic
from matey.parallel.sequence import share_samples
from matey.train.loss import LossScale, training_loss
from tests.support.programs import cases_of, start_ranks


def run_point(case, ranks):
    """Measure a case; bytes of activations are of each rank, and those exchanged of one rank on average."""
    (point,) = cases_of(start_ranks(ranks, "-m", "tests.support.sequence_point", json.dumps(case.to_json())), "point")
    return point


def loss_of(model, batch):
    return training_loss(model(batch), model.sequence_group, {batch.system: LossScale()})[0]


def main(case):
    start_processes(find_environment(), timeout=600, threads=1)
    model, batch = case.make_model().train(), case.make_batch()
    if (size := collectives.world_size()) > 1:
        share_samples(model)
    return_freed_memory(at_once=True)
    # The first step allocates gradients and loads library code for these sizes: neither counts as activations.
    loss_of(model, batch).backward()
    model.zero_grad(set_to_none=False)
    count_traffic()
    before, loss = memory("cpu"), loss_of(model, batch)
    forward = take_traffic()
    loss.backward()
    own = memory("cpu", peak=True) - before, forward, take_traffic()
    stop_counting()
    point = {
        "num_tokens": int(model.count_tokens(batch).sum()),
        "width": model.config.width,
        "num_blocks": model.config.num_blocks,
        "ranks": size,
    }
    activations, *ways = zip(*collectives.from_all_ranks(own), strict=True)
    point |= {"activation_bytes": activations, "traffic_forward": mean(ways[0]), "traffic_backward": mean(ways[1])}
    if collectives.rank() == 0:
        sys.stdout.write(f"point {json.dumps(point)}\n")
    stop_processes()


def mean(of_ranks):
    """Return calls and mean bytes over the ranks for each kind of exchange; all ranks make the same calls."""
    return {
        kind: {"calls": sent["calls"], "bytes": statistics.mean(of_rank[kind]["bytes"] for of_rank in of_ranks)}
        for kind, sent in of_ranks[0].items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Case.from_json(json.loads(sys.argv[1])))
