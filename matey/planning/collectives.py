"""Estimates the time of collectives by an alpha-beta model of the links inside a node and between nodes.

A message of n bytes takes ``alpha + n beta``; a collective costs alpha for each round and beta for each byte. Across nodes, a
collective has three phases, as in NCCL and RCCL: inside each node, between nodes over all links of a node at once, and inside
again. Inside a node, all-reduce, reduce-scatter and all-gather use a ring; between nodes, all-reduce uses a tree (recursive
halving and doubling). After Thakur, Rabenseifner and Gropp 2005 (doi:10.1177/1094342005051521).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from matey.config import CheckpointBlocks, RunConfig, TrainSection
from matey.parallel.topology import Topology
from matey.planning.machine import Machine
from matey.planning.memory import ALL_REDUCE_BUCKET, EngineSettings
from matey.planning.workload import Workload, parts_of_batch


@dataclass(frozen=True)
class Group:
    """The ranks of a collective and their nodes.

    Attributes:
        num_ranks: number of ranks that take part.
        ranks_on_node: largest number of these ranks on one node.
        sharing: number of groups on a node that call at the same time and share the node's links to other nodes.
    """

    num_ranks: int
    ranks_on_node: int
    sharing: int = 1

    @property
    def inside(self) -> int:
        """Number of ranks of the collective on a node."""
        return min(self.num_ranks, self.ranks_on_node)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of the collective."""
        return -(-self.num_ranks // self.ranks_on_node)


def seconds(kind: str, num_bytes: float, group: Group, machine: Machine) -> float:
    """Return the seconds that a collective takes.

    Args:
        kind: ``all_reduce``, ``reduce_scatter_tensor``, ``all_gather_into_tensor`` or ``all_to_all_single``, as DeepSpeed's
            communication logger names them.
        num_bytes: bytes that a rank puts into the call.
        group: the placement of the ranks.
        machine: the machine.
    """
    n, p, d, nodes = num_bytes, group.num_ranks, group.inside, group.num_nodes
    # Of rounds, one after another, and bytes: those of a device inside a node, and between nodes those of a node, of whose
    # links the groups that it has side by side each have a part.
    match kind:
        case "all_reduce":  # reduce-scatter inside, all-reduce of each part between, all-gather inside
            within = 2 * (d - 1), 2 * n * (d - 1) / d
            across = 2 * math.ceil(math.log2(nodes)), 2 * n / d * (nodes - 1) / nodes
        case "reduce_scatter_tensor":
            within, across = (d - 1, n * (d - 1) / d), (nodes - 1, n / d * (nodes - 1) / nodes)
        case "all_gather_into_tensor":  # n is one rank's input
            within, across = (d - 1, n * nodes * (d - 1)), (nodes - 1, n * (nodes - 1))
        case _:
            assert kind == "all_to_all_single", kind  # one partner after another
            within, across = (d - 1, n / p * (d - 1)), (p - d, n / p * (p - d))
    took = within[0] * machine.inside.latency + within[1] / machine.inside.bandwidth
    took += across[0] * machine.between.latency + across[1] * d * group.sharing / machine.between.bandwidth
    return machine.factors.get(kind, 1.0) * took


RECOMPUTED: dict[CheckpointBlocks, float] = {"none": 0.0, "every_other": 0.5, "all": 1.0}
"""Share of the blocks whose forward pass is computed again, by ``parallel.checkpoint_blocks``."""


@dataclass(frozen=True)
class Exchange:
    """Calls of one collective in a step.

    Attributes:
        kind: name of the collective in DeepSpeed's communication logger.
        purpose: the values exchanged, ``gradients``, ``weights`` or ``sequence``.
        num_calls: number of calls in a step.
        num_bytes: bytes that a rank puts into all calls together, its own share included, as the logger counts.
        seconds: seconds that all calls take together if nothing else runs.
    """

    kind: str
    purpose: str
    num_calls: float
    num_bytes: float
    seconds: float


def plan_exchanges(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> tuple[Exchange, ...]:
    """Return the exchanges of a step, accumulation included; those of only a few numbers are left out."""
    about = run, workload, engine, topology, machine
    return (*_of_engine(*about), *_of_sequence(*about))


def _exchange(kind: str, purpose: str, calls: float, num_bytes: float, group: Group, machine: Machine) -> Exchange:
    took = calls * seconds(kind, num_bytes / calls, group, machine) if calls else 0.0
    return Exchange(kind, purpose, calls, num_bytes, took)


def _of_engine(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> list[Exchange]:
    """Return the engine's exchanges: reductions of gradients and gathers of weights over all ranks."""
    ranks, num, size = topology.num_ranks, workload.operations.num_parameters, engine.value_bytes
    if ranks == 1:
        return []
    group = Group(ranks, machine.ranks_on_node(ranks))
    bucket = ALL_REDUCE_BUCKET if engine.stage == 0 or engine.reduces_after_backward else engine.bucket
    # Stages 2 and 3 reduce after every micro-step, the others once.
    times = run.train.accumulation if engine.stage > 1 else 1
    calls, reduced_bytes = times * -(-num // bucket), times * engine.message_bytes * num
    if engine.stage < 3:
        reduced = _exchange("all_reduce", "gradients", calls, reduced_bytes, group, machine)
        if engine.stage == 0:
            return [reduced]
        # One call for each of AdamW's two groups.
        return [reduced, _exchange("all_gather_into_tensor", "weights", 2, size * num / ranks, group, machine)]
    persistent = [values for values in workload.operations.parameters if values < engine.persistent]
    sliced = num - sum(persistent)
    # Weights not kept until the backward pass are gathered again there.
    rolled = num_rolled_on_average(run.train)
    times_gathered = run.train.accumulation * ((1 if sliced <= engine.live else 2) + rolled)
    calls_gathered = times_gathered * -(-sliced // max(1, engine.prefetch))
    gather = "all_gather_into_tensor", "weights"
    return [
        _exchange("reduce_scatter_tensor", "gradients", calls, reduced_bytes, group, machine),
        _exchange(*gather, calls_gathered, times_gathered * size * sliced / ranks, group, machine),
        _exchange(*gather, len(persistent), size * sum(persistent) / ranks, group, machine),
    ]


def num_rolled_on_average(train: TrainSection) -> float:
    """Return the mean number of forward passes before a micro-step that ``train.unroll`` asks for, see `matey.train.unroll`."""
    return train.unroll_share * (train.unroll + 1) / 2 if train.unroll else 0.0


def _of_sequence(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> list[Exchange]:
    """Return the exchanges of ranks that share samples: the routes of tokens, see `matey.model.prepare`, and attention's."""
    size, ways, queries = topology.sequence_parallel_size, topology.head_ways, topology.query_ways
    if size == 1:
        return []
    on_node = machine.ranks_on_node(topology.num_ranks)
    of_group = min(size, on_node)
    whole = Group(size, on_node, sharing=max(1, on_node // size))
    heads = Group(ways, on_node, sharing=max(1, on_node // ways))
    spread = Group(queries, max(1, of_group // ways), sharing=on_node // max(1, of_group // ways))
    config = workload.config
    of_token = config.width * engine.value_bytes
    # Bytes of one embedding for each of a rank's tokens.
    unit = workload.num_tokens * run.train.micro_batch / size * of_token
    rolled, num_blocks = num_rolled_on_average(run.train), config.num_blocks * config.has_tokens
    backward = num_blocks * run.train.accumulation
    both = backward * (1 + rolled + RECOMPUTED[run.parallel.checkpoint_blocks]) + backward
    parts, times = parts_of_batch(workload, run.train.micro_batch, size), (2 + rolled) * run.train.accumulation
    once, near = (
        of_token * sum(counts) / len(parts)
        for counts in ([part.entering + part.leaving for part in parts], [part.near for part in parts])
    )
    # Forward, and the gradients backward; around every map of neighbours and in every block.
    mixings = (2 * config.maps * times + both) * config.mixes_neighbours
    exchanges = [_exchange("all_to_all_single", "sequence", 2 * times, once * times, whole, machine)]
    if mixings:
        exchanges.append(_exchange("all_to_all_single", "sequence", mixings, near * mixings, whole, machine))
    for moved in workload.sequence_plans(run.train.micro_batch, topology):
        group = heads if moved is None else whole
        if moved or (moved is None and ways > 1):
            # Queries, keys and values are sent together, and the attention's result is sent back.
            exchanges.append(_exchange("all_to_all_single", "sequence", 2 * both, 4 * unit * both, group, machine))
        if moved is None and queries > 1:
            # Keys and values are not kept but gathered again for the backward pass, or by blocks that are recomputed; their
            # gradients are scattered.
            gathered, gathers = 2 * unit, (2 + rolled) * backward
            # CPU cores communicate over gloo, see `matey.parallel.exchange.exchange_and_sum`.
            scatter = "all_to_all_single" if machine.shared_devices else "reduce_scatter_tensor"
            exchanges += [
                _exchange("all_gather_into_tensor", "sequence", gathers, gathered * gathers, spread, machine),
                _exchange(scatter, "sequence", backward, gathered * queries * backward, spread, machine),
            ]
    return exchanges
