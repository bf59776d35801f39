"""Estimates the costs of a study's trainings before the first one starts: weights, memory, hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.config import RunConfig, load_deepspeed_config
from matey.data.remote.paths import rooted
from matey.planning.at_hand import is_at_hand
from matey.planning.estimate import estimate
from matey.planning.machine import load_machine
from matey.planning.samples import Assumed
from matey.planning.workload import load_workload
from matey.text_table import text_table

GIB = 2**30
NUM_SAMPLES = 8  # number of windows whose tokens are counted; few, as a study has many models
UNNAMED = tuple(f"field_{number}" for number in range(Assumed.num_fields))  # fields of data that does not exist yet


@dataclass(frozen=True)
class Training:
    """A training that has not ended.

    Attributes:
        name: the model's name, the same for all its seeds.
        run: configuration of the run.
        grids: cells ``z, y, x`` of each of its data sets, used for sets that do not exist yet.
    """

    name: str
    run: RunConfig
    grids: tuple[tuple[int, int, int], ...]


def plan_text(trainings: Sequence[Training], machine: str, ranks: int, deepspeed_config: str, work: Path) -> str:
    """Format the costs of trainings on a machine, a line for each model, and their sum.

    Args:
        trainings: the trainings.
        machine: name or file of the machine, see `matey.planning.machine`.
        ranks: number of ranks of each training.
        deepspeed_config: path of DeepSpeed's JSON.
        work: folder to which relative paths of data refer.

    Raises:
        ConfigError: there is no such machine, or it has fewer nodes than the ranks need.
        DataError: data cannot be read.
    """
    names = list(dict.fromkeys(training.name for training in trainings))
    if not names:
        return "Nothing is left to train."
    engine, lines, node_hours, too_large, assumed = load_deepspeed_config(deepspeed_config), [], 0.0, [], False
    known = load_machine(machine)
    for name in names:
        alike = [training for training in trainings if training.name == name]
        run = alike[0].run
        run, assumptions = run.model_copy(update={"data": rooted(run.data, work)}), None
        if not is_at_hand(run):
            assumed, assumptions = True, Assumed(alike[0].grids)
            if run.model.fields is None:
                run = run.model_copy(update={"model": run.model.model_copy(update={"fields": UNNAMED})})
        workload = load_workload(run, assumptions, NUM_SAMPLES)
        there = known.on_threads(ranks, run.parallel.threads)
        planned = estimate(run, engine, there, ranks=ranks, workload=workload)
        hours = 24 * planned.days
        node_hours += len(alike) * hours * planned.nodes
        too_large += [name] * (not planned.fits)
        lines.append(
            [
                name,
                str(len(alike)),
                f"{planned.num_parameters / 1e6:.2f} M",
                f"{planned.tokens_per_sample:,.0f}",
                f"{planned.memory.total / GIB:.1f} of {planned.memory_limit / GIB:.1f}",
                f"{planned.seconds.total:.3f} s",
                f"{run.train.steps:,}",
                f"{hours:.3g}",
                f"{len(alike) * hours * planned.nodes:,.3g}",
            ]
        )
    head = ["", "trainings", "weights", "tokens", "GiB of a rank", "step", "steps", "hours each", "node hours"]
    return "\n".join(
        [
            f"On {machine}, {ranks} rank{'s' * (ranks > 1)} on {planned.nodes} "
            f"node{'s' * (planned.nodes > 1)}, {planned.samples_per_step} samples a step:",
            text_table(head, lines),
            f"{len(trainings)} trainings, {node_hours:,.3g} node hours, without their starts, validations and scores"
            + ("; tokens by grids and shares that were assumed, since the data is not there yet." if assumed else "."),
            *([f"More memory than there is: {', '.join(too_large)}."] if too_large else []),
        ]
    )
