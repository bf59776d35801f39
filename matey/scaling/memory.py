"""Memory of a rank by part, as DeepSpeed's stages hold it. Found by measuring DeepSpeed 0.19 stage by stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from matey.config import RunConfig
from matey.parallel.topology import Topology
from matey.scaling.engine import EngineSettings
from matey.scaling.machine import Machine
from matey.scaling.workload import Workload
from matey.train.memory import activation_bytes

ALL_REDUCE_BUCKET = 500_000_000  # values that DeepSpeed flattens at once where a stage has no bucket of its own


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one rank on its die, at the most.

    Attributes:
        weights: of the model; with stage 3 a slice.
        gradients: that are kept until the optimizer's step.
        optimizer: both moments, and the float32 copy of the weights where there is one.
        activations: that the backward pass waits for, and the fields themselves.
        communication: buckets, and with stage 3 gathered weights.
        process: what Python, the libraries and the collectives hold before there is a tensor.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    communication: float
    process: float

    @property
    def total(self) -> float:
        """Sum of all parts: they do not all peak at once, so that the real peak is a little lower."""
        return sum(asdict(self).values())

    @classmethod
    def parts(cls) -> list[str]:
        """Return the names of the parts."""
        return [field.name for field in fields(cls)]


def plan_memory(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> MemoryPlan:
    """Return what one rank holds during a step."""
    num, ranks = workload.operations.num_parameters, topology.num_ranks
    weights = engine.value_bytes * num
    optimizer = (12 / ranks if engine.has_own_master else 8) * num
    if engine.stage == 3:
        weights /= ranks
    return MemoryPlan(
        weights=0 if engine.offloads_weights else weights,
        gradients=_gradients(num, engine, ranks),
        optimizer=0 if engine.offloads_optimizer else optimizer,
        activations=_activations(run, workload, engine, topology),
        communication=_communication(num, engine, ranks, whole_buckets=not machine.shared_dies),
        process=machine.reserved_memory,
    )


def _gradients(num: int, engine: EngineSettings, ranks: int) -> float:
    if engine.reduces_after_backward:
        return (2 + 4) * num
    if engine.stage == 0:
        return 4 * num
    kept = engine.gradient_bytes * num / ranks
    return kept if engine.stage > 1 else engine.gradient_bytes * num


def _communication(num: int, engine: EngineSettings, ranks: int, *, whole_buckets: bool) -> float:
    if ranks == 1:
        return 0
    if engine.stage == 0 or engine.reduces_after_backward:
        return engine.value_bytes * min(num, ALL_REDUCE_BUCKET)
    # A bucket is made in full; what is never written takes no memory on a CPU.
    bucket = engine.bucket if whole_buckets else min(num, engine.bucket)
    buckets = engine.value_bytes * bucket * (2 if engine.overlap and engine.stage < 3 else 1)
    return buckets + (engine.value_bytes * min(num, engine.live) if engine.stage == 3 else 0)


def _activations(run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology) -> float:
    share = workload.largest_micro_batch(run.train.micro_batch) / topology.sequence_parallel_size
    recompute = run.parallel.checkpoint_blocks
    kept = activation_bytes(workload.config, share, workload.num_attentions, recompute, engine.value_bytes)
    return kept + run.train.micro_batch * _fields(workload)


def _fields(workload: Workload) -> float:
    """History, its normalised form, target and prediction in float32, which every rank of a sequence group has whole."""
    values = 0
    for sample in workload.samples:
        t, z, y, x = sample.window
        values = max(values, (2 * t + 2) * sample.num_fields * z * y * x)
    return 4 * values
