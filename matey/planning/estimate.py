"""Estimates the cost of a run on a number of ranks of a machine: memory, communication, seconds per step, days.

Collectives take what an alpha-beta model of the links inside a node and between nodes says: a message of n bytes takes
``alpha + n beta``; a collective costs alpha for each round and beta for each byte. Across nodes, a collective has three phases,
as in NCCL and RCCL: inside each node, between nodes over all links of a node at once, and inside again. Inside a node,
all-reduce, reduce-scatter and all-gather use a ring; between nodes, all-reduce uses a tree (recursive halving and doubling).
After Thakur, Rabenseifner and Gropp 2005 (doi:10.1177/1094342005051521).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from matey.config import CheckpointBlocks, ConfigError, RunConfig, TrainSection
from matey.mistakes import Mistake
from matey.model.configuration import SIZES, MateyConfig, with_network_of
from matey.parallel.exchange import Topology
from matey.planning.machine import Machine
from matey.planning.memory import (
    ALL_REDUCE_BUCKET,
    EngineSettings,
    MemoryPlan,
    main_memory,
    plan_memory,
    read_bytes,
    read_engine,
)
from matey.planning.operations import count_kernels
from matey.planning.workload import Assumed, Workload, load_workload, parts_of, sequence_plans
from matey.tokens.refinement import is_of_patches
from matey.train.finetune import load_source
from matey.train.network import group_size

PAGES = Environment(loader=PackageLoader("matey.planning", "."), trim_blocks=True, undefined=StrictUndefined)
ADAM_BYTES = 28  # per parameter: AdamW reads weight, gradient and both moments, and writes all but the gradient


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a step by part; the parts add up to the whole step.

    Attributes:
        forward: tokens, network and loss.
        backward: gradients of the forward pass.
        recompute: second forward passes of checkpointed blocks.
        waiting: load imbalance: waiting for the ranks whose samples have most tokens.
        optimizer: AdamW on this rank's parameters.
        sequence: exchanges of the ranks that share samples.
        gradients: reduction of gradients, without the part hidden behind the backward pass.
        weights: gathering of weights.
    """

    forward: float
    backward: float
    recompute: float
    waiting: float
    optimizer: float
    sequence: float
    gradients: float
    weights: float

    @property
    def total(self) -> float:
        """Seconds of a step."""
        computing = self.forward + self.backward + self.recompute + self.waiting + self.optimizer
        return computing + self.communication

    @property
    def communication(self) -> float:
        """Seconds in which a rank waits for messages."""
        return self.sequence + self.gradients + self.weights


@dataclass(frozen=True)
class Estimate:
    """The costs of a run.

    Attributes:
        ranks: number of ranks of the run.
        nodes: number of nodes that the ranks fill.
        sequence_parallel_size: number of ranks that share samples.
        samples_per_step: number of samples of the global batch.
        tokens_per_sample: mean number of tokens per sample.
        memory: memory of a rank by part, in bytes.
        memory_limit: bytes of memory that a rank has.
        exchanges: messages of a step by kind and purpose.
        seconds: seconds of a step by part.
        mfu: model FLOPs utilisation: operations of the forward and backward pass without recomputation, divided by those
            that all devices could do at their peak rate in the time of a step.
        days: days that all steps of the run take.
        read_bytes: bytes of float32 that a rank reads for a step; compressed chunks are read whole.
        main_memory: bytes of main memory that a rank needs for micro-batches.
        ranks_on_node: number of ranks of a full node.
        node_memory: bytes of main memory of a node; None if unknown, or if it is the devices' own memory.
    """

    ranks: int
    nodes: int
    sequence_parallel_size: int
    samples_per_step: int
    tokens_per_sample: float
    memory: MemoryPlan
    memory_limit: float
    exchanges: tuple[Exchange, ...]
    seconds: StepSeconds
    mfu: float
    days: float
    read_bytes: float
    main_memory: float
    ranks_on_node: int
    node_memory: float | None

    @property
    def fits(self) -> bool:
        """Whether a rank's memory suffices, and also a node's main memory, if it is known."""
        return self.memory.total <= self.memory_limit and self.fits_node

    @property
    def fits_node(self) -> bool:
        """Whether the main memory of a node suffices for its ranks; true if it is unknown."""
        return self.node_memory is None or self.on_node <= self.node_memory

    @property
    def on_node(self) -> float:
        """Bytes of main memory that the ranks of a node need for micro-batches and offloaded state."""
        return self.ranks_on_node * (self.main_memory + self.memory.offloaded)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all ranks per second."""
        return self.samples_per_step * self.tokens_per_sample / self.seconds.total


def estimate(
    run: RunConfig,
    deepspeed_config: dict[str, Any],
    machine: Machine,
    *,
    ranks: int,
    workload: Workload,
) -> Estimate:
    """Estimate a run.

    Args:
        run: the run.
        deepspeed_config: the configuration of the engine.
        machine: the machine on which it runs.
        ranks: number of ranks; they fill nodes one after another.
        workload: result of `load_workload` for the run, or for one with another micro-batch or sequence group.

    Raises:
        ConfigError: a wrong value in the DeepSpeed configuration, more nodes than there are, or a sequence group that does
            not divide the ranks.
    """
    if machine.nodes_of(ranks) > machine.num_nodes:
        raise ConfigError(
            f"{ranks} ranks need {machine.nodes_of(ranks)} nodes of {machine.name}, which has {machine.num_nodes}."
        )
    engine = read_engine(deepspeed_config)
    tokens = run.train.micro_batch * workload.most_tokens
    size = group_size(run, workload.config, lambda: tokens, engine.value_bytes, ranks)
    topology = Topology(0, ranks, size, SIZES[run.model.size][0])
    exchanges = plan_exchanges(run, workload, engine, topology, machine)
    seconds = _seconds(run, workload, engine, topology, machine, exchanges)
    samples = run.train.micro_batch * run.train.accumulation * topology.num_data_ranks
    parts = topology.sequence_parallel_size if is_of_patches(workload.config.refinement) else 1  # of the fields
    operations = 3 * workload.forward_operations * samples
    workers = run.data.workers_with(gpu=not machine.shared_devices)
    peak = machine.peak[engine.precision] * machine.devices_of_rank(ranks) * ranks
    return Estimate(
        ranks=ranks,
        nodes=machine.nodes_of(ranks),
        sequence_parallel_size=topology.sequence_parallel_size,
        samples_per_step=samples,
        tokens_per_sample=workload.num_tokens,
        memory=plan_memory(run, workload, engine, topology, machine),
        memory_limit=machine.memory * machine.devices_of_rank(ranks),
        exchanges=exchanges,
        seconds=seconds,
        mfu=operations / seconds.total / peak,
        days=seconds.total * run.train.steps / 86400,
        read_bytes=run.train.accumulation * read_bytes(workload, run.train.micro_batch, parts),
        main_memory=main_memory(workload, run.train.micro_batch, topology.sequence_parallel_size, workers),
        ranks_on_node=machine.ranks_on_node(ranks),
        node_memory=None if machine.shared_devices else machine.node_memory,
    )


def _seconds(
    run: RunConfig,
    workload: Workload,
    engine: EngineSettings,
    topology: Topology,
    machine: Machine,
    exchanges: tuple[Exchange, ...],
) -> StepSeconds:
    devices = machine.devices_of_rank(topology.num_ranks)
    rate = machine.rate(engine.precision) * devices
    times, size = run.train.accumulation, topology.sequence_parallel_size
    again = RECOMPUTED[run.parallel.checkpoint_blocks]

    def seconds(operations: float, num_kernels: float) -> float:
        return times * max(operations / rate, num_kernels * machine.kernel_seconds)

    kernels = count_kernels(workload.config, workload.num_attentions)
    blocks = workload.block_operations * run.train.micro_batch / size
    outside = workload.outside_of_rank(run.train.micro_batch, size)
    once = seconds(blocks, kernels.block_forward) + seconds(outside, kernels.outside_forward)
    forward = (1 + num_rolled_on_average(run.train)) * once
    backward = seconds(2 * blocks, kernels.block_backward) + seconds(2 * outside, kernels.outside_backward)
    by_purpose = {"sequence": 0.0, "gradients": 0.0, "weights": 0.0}
    for exchange in exchanges:
        by_purpose[exchange.purpose] += exchange.seconds
    if engine.overlaps:
        # The last bucket is only full when the backward pass ends, so its reduction is not hidden.
        last = by_purpose["gradients"] / -(-workload.operations.num_parameters // engine.bucket)
        meanwhile = backward if engine.stage > 1 else backward / times  # stage 1 reduces in the last micro-step
        by_purpose["gradients"] = max(last, by_purpose["gradients"] - meanwhile)
    owned = workload.operations.num_parameters / (topology.num_ranks if engine.stage else 1)
    recompute = again * seconds(blocks, kernels.block_forward)
    # Samples of one system in a micro-batch are about as large as one another, and count as one.
    drawn = times * (1 if run.data.same_system else run.train.micro_batch)
    imbalance = workload.imbalance(topology.num_data_ranks, drawn)
    return StepSeconds(
        forward=forward,
        backward=backward,
        recompute=recompute,
        waiting=(imbalance - 1) * (forward + backward + recompute),
        optimizer=ADAM_BYTES * owned / (machine.memory_bandwidth * devices),
        **by_purpose,
    )


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
        # One call for each group of AdamW, of which there are two without `train.groups`.
        return [reduced, _exchange("all_gather_into_tensor", "weights", 2, size * num / ranks, group, machine)]
    persistent = [
        values for values in workload.operations.parameters if values < engine.zero.param_persistence_threshold
    ]
    sliced = num - sum(persistent)
    # Weights not kept until the backward pass are gathered again there.
    rolled = num_rolled_on_average(run.train)
    times_gathered = run.train.accumulation * ((1 if sliced <= engine.live else 2) + rolled)
    calls_gathered = times_gathered * -(-sliced // max(1, engine.zero.prefetch_bucket_size))
    gather = "all_gather_into_tensor", "weights"
    return [
        _exchange("reduce_scatter_tensor", "gradients", calls, reduced_bytes, group, machine),
        _exchange(*gather, calls_gathered, times_gathered * size * sliced / ranks, group, machine),
        _exchange(*gather, len(persistent), size * sum(persistent) / ranks, group, machine),
    ]


def num_rolled_on_average(train: TrainSection) -> float:
    """Return the mean number of forward passes before a micro-step that ``train.unroll`` asks for, see `matey.train.ahead`."""
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
    batch, times = tuple(islice(cycle(workload.samples), run.train.micro_batch)), (2 + rolled) * run.train.accumulation
    parts = parts_of(workload, batch, size)
    once, near = (
        of_token * sum(counts) / len(parts)
        for counts in ([part.entering + part.leaving for part in parts], [part.near for part in parts])
    )
    # Forward, and the gradients backward; around every map of neighbours and in every block.
    mixings = (2 * config.maps * times + both) * config.mixes_neighbours
    exchanges = [_exchange("all_to_all_single", "sequence", 2 * times, once * times, whole, machine)]
    if mixings:
        exchanges.append(_exchange("all_to_all_single", "sequence", mixings, near * mixings, whole, machine))
    for moved in sequence_plans(workload, batch, replace(topology, num_ranks=size, rank=0)):
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


def plan(
    run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine, ranks: int, assumed: Assumed | None
) -> tuple[str, bool]:
    """Return the estimate of a run as a text, and whether the run fits.

    Args:
        run: the run.
        deepspeed_config: the configuration of the engine.
        machine: the machine on which it runs.
        ranks: number of ranks.
        assumed: assumptions in place of the run's data.
    """
    run, pretrained, notes = as_pretrained(run)
    workload = load_workload(run, assumed, pretrained=pretrained)
    planned = estimate(run, deepspeed_config, machine, ranks=ranks, workload=workload)
    facts = {"run": run, "machine": machine, "assumed": assumed, "workload": workload, "planned": planned}
    return PAGES.get_template("plan.txt").render(facts, notes=notes), planned.fits


def as_pretrained(run: RunConfig) -> tuple[RunConfig, MateyConfig | None, list[str]]:
    """Return a run with the network of the model that it fine-tunes, that model's, and sentences on what is planned.

    Raises:
        ConfigError: the settings of the run contradict the model's.
    """
    if run.finetune is None:
        return run, None, []
    parts = run.finetune.train
    notes = [] if parts == "all" else [f"All weights count as trained, though finetune.train is {parts}."]
    try:
        source = load_source(run)
    except Mistake as error:
        absent = f"The network is that of the YAML alone, since its pretrained model is not there: {error}"
        return run, None, [absent, *notes]
    if source is None:
        return run, None, notes
    return with_network_of(run, source.model.config), source.model.config, notes
