"""What a rank sends in a step, by kind and purpose: the messages that DeepSpeed and the sequence seam will make."""

from __future__ import annotations

from dataclasses import dataclass

from matey.parallel.sequence import TokensPlan, heads_plan_moves, plan_tokens
from matey.parallel.topology import Topology
from matey.scaling.collectives import Group, seconds
from matey.scaling.engine import EngineSettings
from matey.scaling.machine import Machine
from matey.scaling.memory import ALL_REDUCE_BUCKET
from matey.scaling.workload import Workload


@dataclass(frozen=True)
class Exchange:
    """Calls of one collective in a step.

    Attributes:
        kind: as DeepSpeed's communication logger names it.
        purpose: ``gradients``, ``weights`` or ``sequence``.
        num_calls: in a step.
        num_bytes: that a rank puts into all calls together, its own share included, as the logger counts.
        seconds: of all calls together, were nothing else going on.
    """

    kind: str
    purpose: str
    num_calls: float
    num_bytes: float
    seconds: float


def plan_exchanges(
    workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> tuple[Exchange, ...]:
    """Return the exchanges of a step, accumulation included; those of bookkeeping, a few numbers each, are left out."""
    return (*_of_engine(workload, engine, topology, machine), *_of_sequence(workload, engine, topology, machine))


def _exchange(kind: str, purpose: str, calls: float, total: float, group: Group, machine: Machine) -> Exchange:
    return Exchange(kind, purpose, calls, total, calls * seconds(kind, total / calls, group, machine) if calls else 0.0)


def _of_engine(workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine) -> list[Exchange]:
    """Gradients are reduced and weights gathered over all ranks."""
    ranks, num = topology.num_ranks, workload.operations.num_parameters
    if ranks == 1:
        return []
    group = Group(ranks, min(ranks, machine.ranks_on_node(ranks)))
    accumulation, size = workload.run.train.accumulation, engine.value_bytes
    bucket = ALL_REDUCE_BUCKET if engine.stage == 0 or engine.reduces_after_backward else engine.bucket
    # Stages 2 and 3 reduce after every micro-step, the others once.
    times = accumulation if engine.stage > 1 else 1
    buckets = -(-num // bucket)
    if engine.stage < 3:
        exchanges = [_exchange("all_reduce", "gradients", times * buckets, times * size * num, group, machine)]
    else:
        exchanges = [
            _exchange("reduce_scatter_tensor", "gradients", times * buckets, times * size * num, group, machine),
            # Once forward and once backward, block by block.
            _exchange(
                "all_gather_into_tensor",
                "weights",
                2 * times * (workload.config.num_blocks + 2),
                2 * times * size * num / ranks,
                group,
                machine,
            ),
        ]
    if engine.stage in (1, 2):
        exchanges.append(_exchange("all_gather_into_tensor", "weights", 2, size * num / ranks, group, machine))
    return exchanges


def _of_sequence(workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine) -> list[Exchange]:
    """Attention of the ranks that share samples: see `matey.parallel.sequence`."""
    P, ways, queries = topology.sequence_parallel_size, topology.head_ways, topology.query_ways
    if P == 1:
        return []
    run, width = workload.run, workload.config.width
    tokens = workload.num_tokens * run.train.micro_batch
    on_node = machine.ranks_on_node(topology.num_ranks)
    whole = Group(P, min(P, on_node), sharing=max(1, on_node // P))
    heads = Group(ways, min(ways, on_node), sharing=max(1, on_node // ways))
    spread = Group(queries, max(1, min(P, on_node) // ways), sharing=min(P, on_node))
    unit = tokens * width * engine.value_bytes / P  # bytes of one value of the width of all of a rank's tokens
    passes = _passes(run.parallel.checkpoint_blocks) * workload.config.num_blocks * run.train.accumulation
    exchanges = []
    for key in workload.keys(workload.micro_batch(run.train.micro_batch)):
        plan = plan_tokens(key, topology)
        if isinstance(plan, TokensPlan) and plan.num_moved < heads_plan_moves(len(key), topology):
            if plan.num_moved:
                exchanges.append(
                    _exchange("all_to_all_single", "sequence", 2 * passes, 4 * unit * passes, whole, machine)
                )
            continue
        if ways > 1:
            exchanges.append(_exchange("all_to_all_single", "sequence", 2 * passes, 4 * unit * passes, heads, machine))
        if queries > 1:
            times = passes / 2  # half of them are of the forward pass
            gathered = 2 * unit
            # Gathered again for the backward pass instead of kept; the gradients of all keys and values are scattered.
            exchanges += [
                _exchange("all_gather_into_tensor", "sequence", passes, gathered * passes, spread, machine),
                _exchange("reduce_scatter_tensor", "sequence", times, gathered * queries * times, spread, machine),
            ]
    return exchanges


def _passes(checkpoint_blocks: str) -> float:
    """Return how often a block's exchanges are made: forward, backward, and forward again where it is recomputed."""
    return 2 + {"none": 0.0, "every_other": 0.5, "all": 1.0}[checkpoint_blocks]
