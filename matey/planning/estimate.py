"""Estimates the cost of a run on a number of ranks of a machine: memory, communication, seconds per step, days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matey.config import ConfigError, RunConfig
from matey.model.configuration import SIZES
from matey.parallel.topology import Topology
from matey.planning.collectives import RECOMPUTED, Exchange, num_rolled_on_average, plan_exchanges
from matey.planning.machine import Machine
from matey.planning.memory import EngineSettings, MemoryPlan, main_memory, plan_memory, read_bytes, read_engine
from matey.planning.operations import count_kernels
from matey.planning.workload import Workload
from matey.tokens.refinement import is_of_patches
from matey.train.network import group_size

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
        return self.compute + self.communication

    @property
    def compute(self) -> float:
        """Seconds in which a rank computes, or waits for another rank that computes."""
        return self.forward + self.backward + self.recompute + self.waiting + self.optimizer

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
        uniform_tokens_per_sample: mean number of tokens if samples were cut into the finest patches everywhere.
        num_parameters: number of parameters of the model.
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
    uniform_tokens_per_sample: float
    num_parameters: int
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
    topology = _topology(run, workload, engine, ranks)
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
        uniform_tokens_per_sample=workload.num_uniform_tokens,
        num_parameters=workload.operations.num_parameters,
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


def _topology(run: RunConfig, workload: Workload, engine: EngineSettings, ranks: int) -> Topology:
    tokens = run.train.micro_batch * workload.most_tokens
    size = group_size(run, workload.config, lambda: tokens, engine.value_bytes, ranks)
    try:
        return Topology(0, ranks, size, SIZES[run.model.size][0])
    except ValueError as error:
        raise ConfigError(str(error)) from None


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
