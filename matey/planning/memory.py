"""Predicts the memory of a rank: on its device by part, for each of DeepSpeed's stages, and in main memory to read and prepare.

What DeepSpeed holds was measured on its version 0.19, and so was what preparation takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from matey.config import RunConfig
from matey.model.boxes import grain_of
from matey.model.cells import NUM_INPUTS
from matey.model.configuration import MateyConfig
from matey.parallel.engine import is_bf16, zero_settings
from matey.parallel.exchange import Topology
from matey.planning.machine import Machine
from matey.planning.workload import Part, Sample, Workload, num_cells, outside_values, parts_of
from matey.tokens.neighbours import places_around
from matey.train.ahead import is_copied_ahead
from matey.train.network import activation_bytes

GRADIENT_COPY = 4  # bytes per parameter: contiguous gradients of the slice that AdamW updates
PLAN_BYTES = 80  # per token, besides 16 for each place around it
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
    optimizer = (12 / ranks if engine.stage else 8) * num + (
        4 * num / (ranks if engine.stage else 1) if run.train.ema else 0
    )
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
        weights=weights if engine.weights_on == "none" else 0,
        gradients=_gradients_in_backward(num, engine, ranks) + _waiting_gradients(num, engine, run.train.accumulation),
        optimizer=optimizer if engine.optimizer_on == "none" else 0,
        of_activations=_activations(run, workload, engine, topology, machine),
        communication=_communication(num, engine, whole_buckets),
        adam=adam,
        offloaded=weights * (engine.weights_on == "cpu") + optimizer * (engine.optimizer_on == "cpu"),
        process=machine.reserved_memory,
    )


def _gradient_copies(engine: EngineSettings) -> int:
    if engine.stage == 0 or engine.optimizer_on != "none":
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
        return copied + _bucket(num, engine, whole_buckets, 2 if engine.zero.overlap_comm else 1)
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
    of_tokens, on_cells, of_fields = outside_values(workload, num_samples, ways)
    # A single rank that unrolls histories first has read them to its device; parts wait in main memory.
    read = num_samples * max(sample.num_bytes for sample in workload.samples) * (run.train.unroll > 0 and ways == 1)
    ready = ready_bytes(workload, num_samples, ways)
    is_ahead = not machine.shared_devices and is_copied_ahead(ready, machine.memory)  # CPU cores need no copy
    return {
        "blocks": activation_bytes(
            workload.config,
            share,
            workload.num_attentions,
            recompute,
            engine.value_bytes,
            offloaded=run.parallel.offload_activations,
        ),
        "embedding, decoding": engine.value_bytes * of_tokens,
        "layers on cells": engine.value_bytes * on_cells + 4 * of_fields,
        "fields": ready + read,
        "next micro-batch": ready * is_ahead,
    }


@cache
def ready_bytes(workload: Workload, micro_batch: int, ways: int) -> float:
    """Return the bytes of a prepared micro-batch on the rank that has most: its fields in float32, and plans."""
    near = 16 * len(places_around(workload.config.patches)) * workload.config.mixes_neighbours  # in two orders
    plans = micro_batch / ways * (PLAN_BYTES + near)
    return max(
        held_bytes(workload.config, sample, part) + plans * sample.num_tokens
        for sample in workload.samples
        for part in parts_of(workload, (sample,) * micro_batch, ways)
    )


def held_bytes(config: MateyConfig, sample: Sample, part: Part) -> float:
    """Return the bytes of history, last frame and target in a rank's box, of the inputs around it, and of the grains."""
    (cut,) = part.cuts
    own = math.prod(side.stop - side.start for side in cut.box.cells)
    of_own = sample.window[0] * sample.num_inputs + 2 * sample.num_fields
    around = NUM_INPUTS * sample.num_inputs * config.has_cells * num_cells(cut.spans)
    levels = len(config.patches) if config.tokens.set == "mul" else 1
    grains = 8 * levels * own / math.prod(grain_of(config.patches)) * config.mixes_neighbours
    return part.num_samples * (4 * (of_own * own + around) + grains)


@dataclass(frozen=True)
class EngineSettings:
    """The settings of a DeepSpeed configuration that planning needs.

    Attributes:
        zero: the ZeRO section, with its defaults.
        precision: precision of weights and activations, ``float32`` or ``bfloat16``.
        gradient_bytes: bytes of each gradient value that is kept for the optimizer.
        message_bytes: bytes of each gradient value that is sent to other ranks.
        optimizer_on: place of the optimizer's state off the device, ``cpu`` or ``nvme``; DeepSpeed allows it from stage 1 on.
        weights_on: place of the weights off the device, with stage 3 only; ``none`` for on the device, in both.
    """

    zero: Any
    precision: str
    gradient_bytes: int
    message_bytes: int
    optimizer_on: str
    weights_on: str

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(self.zero.stage)

    @property
    def bucket(self) -> int:
        """Number of values that are reduced together."""
        return int(self.zero.reduce_bucket_size)

    @property
    def live(self) -> int:
        """Number of gathered weight values that stage 3 keeps at once."""
        return min(self.zero.max_live_parameters, self.zero.max_reuse_distance)

    @property
    def value_bytes(self) -> int:
        """Bytes of a weight or an activation."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def reduces_after_backward(self) -> bool:
        """Whether DeepSpeed uses its optimizer for bfloat16 with stage 1 and float32 gradients.

        It keeps whole gradients in both precisions, and reduces them after the backward pass, ignoring ``overlap_comm``.
        """
        return (
            self.stage == 1
            and self.precision == "bfloat16"
            and self.gradient_bytes == 4
            and self.optimizer_on == "none"
        )

    @property
    def overlaps(self) -> bool:
        """Whether gradients of the last layers are reduced while those of the first are computed."""
        return bool(self.zero.overlap_comm) and self.stage > 0 and not self.reduces_after_backward


def read_engine(config: dict[str, Any]) -> EngineSettings:
    """Read a DeepSpeed configuration as DeepSpeed does.

    Raises:
        ConfigError: the configuration holds a wrong key or value.
    """
    zero, half = zero_settings(config), is_bf16(config)
    accumulate = config.get("data_types", {}).get("grad_accum_dtype")
    optimizer, weights = (
        "none" if part is None else part.device for part in (zero.offload_optimizer, zero.offload_param)
    )
    return EngineSettings(
        zero,
        precision="bfloat16" if half else "float32",
        gradient_bytes=2 if half and accumulate != "fp32" else 4,
        message_bytes=4 if config.get("communication_data_type") in (None, "fp32") else 2,
        optimizer_on=optimizer if zero.stage >= 1 else "none",
        weights_on=weights if zero.stage == 3 else "none",
    )


PREPARING = 1.6  # times what is read and what is prepared from it, with temporaries; measured 1.0 to 1.8
READ_AHEAD = 2  # micro-batches that a worker of PyTorch's loader reads ahead


def main_memory(workload: Workload, micro_batch: int, ways: int, workers: int) -> float:
    """Return about the bytes of main memory that a rank needs to read and prepare micro-batches, now and ahead.

    Args:
        workload: the samples and the network.
        micro_batch: number of samples.
        ways: number of ranks that share the samples. If several, each reads and prepares its part; a single rank leaves the
            preparing to its workers, if there are any.
        workers: number of processes of the rank that read ahead.
    """
    ready = ready_bytes(workload, micro_batch, ways)
    read = max(_most_read(workload, sample, micro_batch, ways) for sample in workload.samples)
    num_preparing, ahead = (max(workers, 1), ready) if ways == 1 else (1, read)
    return num_preparing * PREPARING * (read + ready) + READ_AHEAD * workers * ahead


def read_bytes(workload: Workload, num_samples: int, ways: int) -> float:
    """Return the bytes of float32 that a rank reads of a micro-batch of average samples.

    Args:
        workload: the samples and the network.
        num_samples: number of samples of the micro-batch.
        ways: number of ranks that read a part each, with the cells around it; of these, the one that reads most counts.
    """
    samples = workload.samples
    return sum(_most_read(workload, sample, num_samples, ways) for sample in samples) / len(samples)


def _most_read(workload: Workload, sample: Sample, num_samples: int, ways: int) -> int:
    """Return the bytes of a micro-batch of copies of a sample that the rank with the largest part reads."""
    parts = parts_of(workload, (sample,) * num_samples, ways)
    return sample.bytes_of_cell * max(part.num_samples * num_cells(part.cuts[0].spans) for part in parts)
