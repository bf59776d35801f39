"""Predicts the memory of a rank by part for each of DeepSpeed's stages, from measurements of DeepSpeed 0.19."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

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

GRADIENT_COPY = 4  # bytes per parameter: contiguous gradients of the slice that AdamW updates
LAYOUT_BYTES = 40  # per token
ALL_REDUCE_BUCKET = 500_000_000  # values that DeepSpeed flattens at once in a stage without its own bucket


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of one rank on its device, in bytes.

    Attributes:
        weights: weights of the model; with stage 3 this rank's slice.
        gradients: gradients kept for the optimizer, and gradients that wait to be reduced.
        optimizer: both moments, the float32 copy of the weights if there is one, and their moving average.
        of_activations: values that the backward pass needs, and the fields themselves, by part; also those of the next
            micro-batch, if it is copied ahead.
        communication: buckets of the collectives, and with stage 3 gathered weights.
        adam: gradients or gathered weights during the optimizer's step, when activations and buckets are already
            released.
        offloaded: weights and optimizer state in main memory instead of the device.
        process: memory that Python, the libraries and the collectives hold before the first tensor is made.
    """

    weights: float
    gradients: float
    optimizer: float
    of_activations: Mapping[str, float]
    communication: float
    adam: float
    offloaded: float
    process: float

    @property
    def activations(self) -> float:
        """Values that the backward pass needs, and the fields, in bytes."""
        return sum(self.of_activations.values())

    @property
    def total(self) -> float:
        """The larger one of the peaks of the backward pass and of the optimizer's step."""
        backward = self.gradients + self.activations + self.communication
        return self.process + self.weights + self.optimizer + max(backward, self.adam)


def plan_memory(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> MemoryPlan:
    """Return the memory that one rank needs during a step."""
    num, ranks = workload.operations.num_parameters, topology.num_ranks
    weights: float = engine.value_bytes * num
    # In every stage except 0, the optimizer works on float32 copies of the weights.
    optimizer = (12 / ranks if engine.stage else 8) * num + (4 * num / ranks if run.train.ema else 0)
    whole_buckets = not machine.shared_devices
    adam = _kept_gradients(num, engine, ranks) + _gradient_copies(engine) * num / ranks
    gathered = engine.value_bytes * num * (ranks > 1)  # new weights of all ranks before they are copied to their places
    if engine.reduces_after_backward:
        adam += engine.value_bytes * num + gathered  # and gradients in bfloat16, kept until the end of the step
    elif engine.stage == 3:
        weights /= ranks
        adam += _bucket(num, engine, whole_buckets)  # only this stage keeps the bucket
    elif engine.stage > 0:
        adam = max(adam, gathered)  # gradients are already released
    return MemoryPlan(
        weights=0 if engine.offloads_weights else weights,
        gradients=_gradients_in_backward(num, engine, ranks) + _waiting_gradients(num, engine, run.train.accumulation),
        optimizer=0 if engine.offloads_optimizer else optimizer,
        of_activations=_activations(run, workload, engine, topology, machine),
        communication=_communication(num, engine, whole_buckets),
        adam=adam,
        offloaded=weights * (engine.offloads_weights and not engine.weights_on_disk)
        + optimizer * (engine.offloads_optimizer and not engine.optimizer_on_disk),
        process=machine.reserved_memory,
    )


def _gradient_copies(engine: EngineSettings) -> int:
    if engine.stage == 0 or engine.offloads_optimizer:
        return 0  # AdamW uses gradients in place, or works in main memory
    # Stages 1 and 2 with bfloat16 keep float32 gradients, which are not copied again.
    in_place = engine.stage < 3 and engine.precision == "bfloat16" and engine.gradient_bytes == 4
    return 0 if in_place else GRADIENT_COPY


def _kept_gradients(num: int, engine: EngineSettings, ranks: int) -> float:
    if engine.stage == 0 or engine.reduces_after_backward:
        return 4 * num
    return engine.gradient_bytes * num / ranks


def _gradients_in_backward(num: int, engine: EngineSettings, ranks: int) -> float:
    """Return the bytes of kept gradients at the peak of the backward pass."""
    kept = _kept_gradients(num, engine, ranks)
    if engine.stage in (1, 2) and engine.precision == "float32":
        return kept * (1 - min(num, engine.bucket) / num)  # the last bucket's are made when the bucket is released
    return kept


def _waiting_gradients(num: int, engine: EngineSettings, accumulation: int) -> float:
    if engine.stage == 0:
        return 0
    # Stages 2 and 3 release gradients as soon as a bucket is full; stage 1 does if it overlaps, after accumulation.
    gives_up = engine.stage > 1 or (engine.overlaps and accumulation == 1)
    return engine.value_bytes * (min(num, engine.bucket) if gives_up else num)


def _communication(num: int, engine: EngineSettings, whole_buckets: bool) -> float:
    together = min(num, ALL_REDUCE_BUCKET)
    if engine.stage == 0:
        return 4 * together
    if engine.reduces_after_backward:
        return (4 + 2 * (engine.message_bytes == 2)) * together  # flattened, then in the precision of the message
    # A bucket that is sent more precisely than it is computed is copied first.
    copied = engine.message_bytes * min(num, engine.bucket) if engine.message_bytes > engine.value_bytes else 0
    if engine.stage < 3:
        return copied + _bucket(num, engine, whole_buckets, 2 if engine.overlap else 1)
    return copied + _bucket(num, engine, whole_buckets) + engine.value_bytes * min(num, engine.live)


def _bucket(num: int, engine: EngineSettings, whole_buckets: bool, times: int = 1) -> float:
    # Buckets are allocated in full, but unwritten memory does not count on a CPU. Those of stage 3 are sent as they are.
    num_bytes = engine.message_bytes if engine.stage == 3 else engine.value_bytes
    return num_bytes * (times * engine.bucket if whole_buckets else min(num, times * engine.bucket))


def _activations(
    run: RunConfig, workload: Workload, engine: EngineSettings, topology: Topology, machine: Machine
) -> dict[str, float]:
    """Return the bytes of activations and fields by part, on the rank that keeps most outside the blocks."""
    num_samples, ways = run.train.micro_batch, topology.sequence_parallel_size
    share, recompute = num_samples * workload.most_tokens / ways, run.parallel.checkpoint_blocks
    decoded, on_cells, around = workload.outside_bytes(num_samples, ways, engine.value_bytes)
    return {
        "blocks": activation_bytes(
            workload.config,
            share,
            workload.num_attentions,
            recompute,
            engine.value_bytes,
            offloaded=run.parallel.offload_activations,
        ),
        "embedding, decoding": decoded,
        "layers on cells": on_cells,
        "frames around cells": around,
        "fields": num_samples * _fields(workload, ways, has_read=run.train.unroll > 0 and ways == 1),
        "next micro-batch": ahead_bytes(workload, num_samples, ways, machine),
    }


@cache
def _fields(workload: Workload, ways: int, *, has_read: bool) -> float:
    """Return the bytes of a sample's fields on a rank's device, in float32, and of the rank's plan of their cells.

    The fields are the rank's part of the normalised history, of given fields, of the target and of the last frame. If a single
    rank unrolls histories first, it also has the frames that it has read; parts waiting to be unrolled stay in main memory.
    Cells around its own are counted with the activations.
    """
    most = 0.0
    for sample in workload.samples:
        t, z, y, x = sample.window
        read = (t + 1) * sample.num_fields + sample.given_frames * sample.num_given if has_read else 0
        most = max(most, field_bytes(workload, sample) / ways + 4 * read * z * y * x)
    return most


def ahead_bytes(workload: Workload, micro_batch: int, ways: int, machine: Machine) -> float:
    """Return the bytes of the next micro-batch on a rank's GPU, copied while another is in use, see `matey.train.ahead`.

    CPU cores need no copy, and a micro-batch that is large compared with the GPU's memory is not copied ahead.
    """
    num_bytes = ready_bytes(workload, micro_batch, ways)
    return num_bytes * (not machine.shared_devices and is_copied_ahead(num_bytes, machine.memory))


@cache
def ready_bytes(workload: Workload, micro_batch: int, ways: int) -> float:
    """Return the bytes of a prepared micro-batch of a rank: its fields, the frames around its cells, and plans."""
    own = max(field_bytes(workload, sample) + LAYOUT_BYTES * sample.num_tokens for sample in workload.samples)
    return micro_batch * own / ways + workload.most_around_bytes(micro_batch, ways)


def field_bytes(workload: Workload, sample: Sample) -> float:
    """Return the bytes of a sample's normalised history, target and last frame in float32, and of the plan of its cells."""
    t, z, y, x = sample.window
    return 4 * (t * sample.num_inputs + 2 * sample.num_fields) * z * y * x + map_bytes(workload.config, sample)


def map_bytes(config: MateyConfig, sample: Sample) -> float:
    """Return the bytes of the plan of a sample's cells."""
    # Each block and each tile has a number for each neighbour; added levels have their own blocks. Every cell has a weight
    # and a mark.
    maps = [2 * len(list(directions(shape.margin))) / math.prod(shape.cells) + 1 for shape in block_shapes(config)]
    of_cell = (sum(maps) if config.tokens.set == "mul" else max(maps)) + 1 / 4
    return 4 * of_cell * math.prod(sample.window[1:])
