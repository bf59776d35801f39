"""Searches for other ways to run the same training on the same ranks: those that fit, the nearest and the fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from matey.config import RunConfig
from matey.parallel.engine import is_bf16
from matey.planning.engine import read_engine
from matey.planning.estimate import Estimate, estimate
from matey.planning.exchanges import RECOMPUTED
from matey.planning.machine import Machine
from matey.planning.workload import Workload


@dataclass(frozen=True)
class Choice:
    """Settings that a search varies at a fixed global batch.

    Attributes:
        stage: the ZeRO stage.
        sequence_parallel_size: number of ranks that share samples.
        micro_batch: number of samples of a sequence group per micro-step.
        accumulation: number of micro-steps per step.
        checkpoint_blocks: blocks whose forward pass is computed again.
        bf16: whether weights and activations are bfloat16.
    """

    stage: int
    sequence_parallel_size: int
    micro_batch: int
    accumulation: int
    checkpoint_blocks: str
    bf16: bool

    def changes(self, other: Choice) -> list[str]:
        """Return the settings in which this choice differs from another."""
        sets = {
            "zero_optimization.stage": (self.stage, other.stage),
            "parallel.sequence_parallel_size": (self.sequence_parallel_size, other.sequence_parallel_size),
            "train.micro_batch": (self.micro_batch, other.micro_batch),
            "train.accumulation": (self.accumulation, other.accumulation),
            "parallel.checkpoint_blocks": (self.checkpoint_blocks, other.checkpoint_blocks),
            "bf16.enabled": (str(self.bf16).lower(), str(other.bf16).lower()),
        }
        return [f"{key}={value}" for key, (value, old) in sets.items() if value != old]

    def settings(self, run: RunConfig, deepspeed_config: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
        """Return the run and the DeepSpeed configuration with the settings of this choice."""
        train = run.train.model_copy(update={"micro_batch": self.micro_batch, "accumulation": self.accumulation})
        parallel = run.parallel.model_copy(
            update={
                "sequence_parallel_size": self.sequence_parallel_size,
                "checkpoint_blocks": self.checkpoint_blocks,
                "offload_activations": run.parallel.offload_activations and self.checkpoint_blocks != "none",
            }
        )
        config = deepcopy(deepspeed_config)
        config["zero_optimization"] = _on_stage(config.get("zero_optimization", {}), self.stage)
        if self.bf16 != is_bf16(config):
            for key in ("bf16", "data_types"):
                config.pop(key, None)
            if self.bf16:
                config.update(bf16={"enabled": True}, data_types={"grad_accum_dtype": "fp32"})
        return run.model_copy(update={"train": train, "parallel": parallel}), config


def choice_of(run: RunConfig, deepspeed_config: dict[str, Any], planned: Estimate) -> Choice:
    """Return the settings of a run and its DeepSpeed configuration as a choice."""
    engine = read_engine(deepspeed_config)
    return Choice(
        engine.stage,
        planned.sequence_parallel_size,
        run.train.micro_batch,
        run.train.accumulation,
        run.parallel.checkpoint_blocks,
        engine.precision == "bfloat16",
    )


def search(
    run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine, planned: Estimate, workload: Workload
) -> list[tuple[Choice, Estimate]]:
    """Estimate every choice with the ranks and the global batch of ``planned``, fastest first.

    Sequence groups have at most as many ranks as a node has devices; stage 0 is tried without bfloat16, which it refuses.
    State that the configuration offloads stays offloaded in every stage that can do so.
    """
    found = []
    for choice in _choices(planned, machine):
        other_run, other_config = choice.settings(run, deepspeed_config)
        found.append((choice, estimate(other_run, other_config, machine, ranks=planned.ranks, workload=workload)))
    current = choice_of(run, deepspeed_config, planned)

    def rank(pair: tuple[Choice, Estimate]) -> tuple[float, int]:
        # Times closer than the model's accuracy are ranked by the number of changes.
        return float(f"{pair[1].seconds.total:.3g}"), len(pair[0].changes(current))

    return sorted(found, key=rank)


def nearest_that_fits(current: Choice, found: Sequence[tuple[Choice, Estimate]]) -> tuple[Choice, Estimate] | None:
    """Return the choice that fits with the fewest changes, the fastest of several; None if none fits."""
    fitting = [pair for pair in found if pair[1].fits]
    return min(fitting, key=lambda pair: (len(pair[0].changes(current)), pair[1].seconds.total), default=None)


def _choices(planned: Estimate, machine: Machine) -> Iterator[Choice]:
    for size in _divisors(min(planned.ranks, machine.devices_per_node)):
        if planned.ranks % size or planned.samples_per_step % (planned.ranks // size):
            continue
        samples = planned.samples_per_step // (planned.ranks // size)
        for micro_batch in _divisors(samples):
            for recompute in RECOMPUTED:
                for stage, bf16 in ((0, False), (1, False), (2, False), (3, False), (1, True), (2, True), (3, True)):
                    yield Choice(stage, size, micro_batch, samples // micro_batch, recompute, bf16)


def _on_stage(zero: dict[str, Any], stage: int) -> dict[str, Any]:
    """Return the ZeRO section for another stage, without offloading that only higher stages support."""
    zero = {**zero, "stage": stage}
    if stage < 3:
        zero.pop("offload_param", None)
        (zero.get("offload_optimizer") or {}).pop("ratio", None)  # share of the optimizer that is offloaded
    if stage < 1:
        zero.pop("offload_optimizer", None)
    return zero


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
