"""Memory of a rank by part, as DeepSpeed's stages hold it. Found by measuring DeepSpeed 0.19 stage by stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matey.config import RunConfig
from matey.model.blending import directions
from matey.model.configuration import MateyConfig
from matey.model.decoding import block_shapes
from matey.parallel.topology import Topology
from matey.planning.engine import EngineSettings
from matey.planning.machine import Machine
from matey.planning.samples import Sample
from matey.planning.workload import Workload
from matey.train.memory import activation_bytes, is_copied_ahead

GRADIENT_COPY = 4  # bytes a parameter: gradients of the slice that AdamW steps, laid side by side
LAYOUT_BYTES = 40  # of a token
ALL_REDUCE_BUCKET = 500_000_000  # values that DeepSpeed flattens at once where a stage has no bucket of its own


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of one rank on its device, in bytes.

    Attributes:
        weights: weights of the model; with stage 3 this rank's slice.
        gradients: gradients kept for the optimizer, and gradients that wait to be reduced.
        optimizer: both moments, the float32 copy of the weights where there is one, and their moving average.
        activations: activations that the backward pass needs, and the fields themselves; of the next micro-batch too where it
            is copied ahead.
        communication: buckets of the collectives, and with stage 3 gathered weights.
        adam: gradients or gathered weights that are there during the optimizer's step; activations and buckets are gone by
            then.
        offloaded: weights and optimizer that are in main memory instead.
        process: memory that Python, the libraries and the collectives hold before the first tensor is made.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    communication: float
    adam: float
    offloaded: float
    process: float

    @property
    def total(self) -> float:
        """The larger of the peaks of the backward pass and of the optimizer's step."""
        backward = self.gradients + self.activations + self.communication
        return self.process + self.weights + self.optimizer + max(backward, self.adam)


def plan_memory(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> MemoryPlan:
    """Return the memory that one rank needs during a step."""
    num, ranks = workload.operations.num_parameters, topology.num_ranks
    weights: float = engine.value_bytes * num
    # With every stage but 0 the optimizer works on float32 copies of the weights.
    optimizer = (12 / ranks if engine.stage else 8) * num + (4 * num / ranks if run.train.ema else 0)
    whole_buckets = not machine.shared_devices
    adam = _kept_gradients(num, engine, ranks) + _gradient_copies(engine) * num / ranks
    gathered = engine.value_bytes * num * (ranks > 1)  # new weights of all ranks, on their way to their places
    if engine.reduces_after_backward:
        adam += engine.value_bytes * num + gathered  # and gradients in bfloat16, which wait for the end of the step
    elif engine.stage == 3:
        weights /= ranks
        adam += _bucket(num, engine, whole_buckets)  # which this stage alone keeps
    elif engine.stage > 0:
        adam = max(adam, gathered)  # gradients are gone by then
    return MemoryPlan(
        weights=0 if engine.offloads_weights else weights,
        gradients=_gradients_in_backward(num, engine, ranks) + _waiting_gradients(num, engine, run.train.accumulation),
        optimizer=0 if engine.offloads_optimizer else optimizer,
        activations=_activations(run, workload, engine, topology)
        + ahead_bytes(workload, run.train.micro_batch, topology.sequence_parallel_size, machine),
        communication=_communication(num, engine, whole_buckets),
        adam=adam,
        offloaded=weights * (engine.offloads_weights and not engine.weights_on_disk)
        + optimizer * (engine.offloads_optimizer and not engine.optimizer_on_disk),
        process=machine.reserved_memory,
    )


def _gradient_copies(engine: EngineSettings) -> int:
    if engine.stage == 0 or engine.offloads_optimizer:
        return 0  # AdamW takes gradients as they are, or works in main memory
    # Float32 gradients that stages 1 and 2 of bfloat16 keep are not copied again.
    in_place = engine.stage < 3 and engine.precision == "bfloat16" and engine.gradient_bytes == 4
    return 0 if in_place else GRADIENT_COPY


def _kept_gradients(num: int, engine: EngineSettings, ranks: int) -> float:
    if engine.stage == 0 or engine.reduces_after_backward:
        return 4 * num
    return engine.gradient_bytes * num / ranks


def _gradients_in_backward(num: int, engine: EngineSettings, ranks: int) -> float:
    """Return the kept gradients that there are at the peak of the backward pass."""
    kept = _kept_gradients(num, engine, ranks)
    if engine.stage in (1, 2) and engine.precision == "float32":
        return kept * (1 - min(num, engine.bucket) / num)  # those of the last bucket are made when it is let go
    return kept


def _waiting_gradients(num: int, engine: EngineSettings, accumulation: int) -> float:
    if engine.stage == 0:
        return 0
    # Stages 2 and 3 give gradients up as soon as a bucket is full; stage 1 does where it overlaps, once they have added up.
    gives_up = engine.stage > 1 or (engine.overlaps and accumulation == 1)
    return engine.value_bytes * (min(num, engine.bucket) if gives_up else num)


def _communication(num: int, engine: EngineSettings, whole_buckets: bool) -> float:
    together = min(num, ALL_REDUCE_BUCKET)
    if engine.stage == 0:
        return 4 * together
    if engine.reduces_after_backward:
        return (4 + 2) * together  # flattened, then in the precision that is sent
    if engine.stage < 3:
        return _bucket(num, engine, whole_buckets, 2 if engine.overlap else 1)
    return _bucket(num, engine, whole_buckets) + engine.value_bytes * min(num, engine.live)


def _bucket(num: int, engine: EngineSettings, whole_buckets: bool, times: int = 1) -> float:
    # They are made in full; what is never written takes no memory on a CPU.
    return engine.value_bytes * (times * engine.bucket if whole_buckets else min(num, times * engine.bucket))


def _activations(run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology) -> float:
    share = run.train.micro_batch * workload.most_tokens / topology.sequence_parallel_size
    recompute = run.parallel.checkpoint_blocks
    kept = activation_bytes(workload.config, share, workload.num_attentions, recompute, engine.value_bytes)
    outside = workload.most_outside_bytes(run.train.micro_batch, topology.sequence_parallel_size, engine.value_bytes)
    return kept + outside + run.train.micro_batch * _fields(run, workload, topology.sequence_parallel_size)


def _fields(run: RunConfig, workload: Workload, ways: int) -> float:
    """Return the bytes of the fields that a rank has on its device for a sample, in float32, and of its plan of their cells.

    Its part of the normalised history, of what is given with it, of the target and of the last frame (what it sees around its
    cells is counted with what it keeps of them); where one rank unrolls histories first, what it has read.
    """
    most = 0.0
    for sample in workload.samples:
        t, z, y, x = sample.window
        has_read = run.train.unroll and ways == 1  # parts that are to be unrolled stay in main memory
        read = (t + 1) * sample.num_fields + sample.given_frames * sample.num_given if has_read else 0
        most = max(most, field_bytes(workload, sample) / ways + 4 * read * z * y * x)
    return most


def ahead_bytes(workload: Workload, micro_batch: int, ways: int, machine: Machine) -> float:
    """Return the bytes of the micro-batch that lies on a rank's GPU beside the one in use, see `matey.train.ahead`.

    Cores of a host need no copy, and what is large beside a GPU's memory is not copied ahead.
    """
    num_bytes = ready_bytes(workload, micro_batch, ways)
    return num_bytes * (not machine.shared_devices and is_copied_ahead(num_bytes, machine.memory))


def ready_bytes(workload: Workload, micro_batch: int, ways: int) -> float:
    """Return the bytes of a micro-batch that a rank has prepared: its fields, what it sees around its cells, and plans."""
    own = max(field_bytes(workload, sample) + LAYOUT_BYTES * sample.num_tokens for sample in workload.samples)
    return micro_batch * own / ways + workload.most_around_bytes(micro_batch, ways)


def field_bytes(workload: Workload, sample: Sample) -> float:
    """Return the bytes of a sample's normalised history, target and last frame in float32, and of the plan of its cells."""
    t, z, y, x = sample.window
    return 4 * (t * sample.num_inputs + 2 * sample.num_fields) * z * y * x + map_bytes(workload.config, sample)


def map_bytes(config: MateyConfig, sample: Sample) -> float:
    """Return the bytes of the plan of a sample's cells."""
    # Each block, and each of the tiles, has a number for each neighbour; levels that are added have blocks of their own. Every
    # cell has a weight and a mark.
    maps = [2 * len(list(directions(shape.margin))) / math.prod(shape.cells) + 1 for shape in block_shapes(config)]
    of_cell = (sum(maps) if config.tokens.set == "mul" else max(maps)) + 1 / 4
    return 4 * of_cell * math.prod(sample.window[1:])
