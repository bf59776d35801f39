"""Plans a run before it costs node hours, for tools/plan.py."""

from __future__ import annotations

import argparse
import math
from typing import Any

from matey.config import ConfigError, RunConfig
from matey.model.configuration import MateyConfig, with_network_of
from matey.planning import is_at_hand
from matey.planning.estimate import Choice, Estimate, choice_of, estimate, nearest_that_fits, search
from matey.planning.machine import Machine
from matey.planning.workload import Assumed, Workload, load_workload
from matey.text_table import text_table
from matey.train.finetune import load_source

GIB, MB = 2**30, 1e6
PART_NAMES = {"waiting": "load imbalance"}  # parts of a step for which the field has its own term


def main(args: argparse.Namespace, run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine) -> int:
    """Print the estimate and, if asked or if the run does not fit, other ways to run it; return the exit code of the tool."""
    run, pretrained, notes = as_pretrained(run)
    assumed = None
    if args.grid is not None or not is_at_hand(run):
        assumed = Assumed(tuple(args.grid or [(1, 128, 128)]), args.refined, args.fields)
    workload = load_workload(run, assumed, pretrained=pretrained)
    size = {"ranks": args.ranks} if args.ranks else {"nodes": args.nodes}
    planned = estimate(run, deepspeed_config, machine, workload=workload, **size)
    print("\n".join([*notes, text(planned, workload, assumed, run, machine)]))
    rate = workload.read_rate if args.read_rate is None else args.read_rate * MB
    source = "as the windows were read here" if args.read_rate is None else "--read_rate"
    print(reading_text(planned.read_bytes / planned.seconds.total, rate, planned.workers, planned.ranks, source))
    if not planned.fits_node:
        print(
            "The main memory of a node does not suffice for its ranks: take fewer data.workers, more ranks to a sequence "
            "group, or fewer ranks on a node."
        )
    if planned.fits and not args.search:
        return 0
    found = search(run, deepspeed_config, machine, planned, workload)
    current = choice_of(run, deepspeed_config, planned)
    if not planned.fits:
        print(f"\n{advice(current, found)}")
    if args.search:
        print(f"\n{table(current, found, args.top)}")
    return 0 if planned.fits else 1


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
    except ConfigError as error:
        absent = f"The network is that of the YAML alone, since its pretrained model is not there: {error}"
        return run, None, [absent, *notes]
    if source is None:
        return run, None, notes
    return with_network_of(run, source.model.config), source.model.config, notes


def text(planned: Estimate, workload: Workload, assumed: Assumed | None, run: RunConfig, machine: Machine) -> str:
    """Format an estimate as lines."""
    lines = [
        f"{run.model.size} {run.model.scheme}, {planned.num_parameters:,} parameters; ranks {planned.ranks}, nodes of "
        f"{machine.name} {planned.nodes}, ranks of a sequence group {planned.sequence_parallel_size}; global batch "
        f"{planned.samples_per_step} samples",
        "",
        f"tokens per sample       {planned.tokens_per_sample:10,.0f}   {_source(workload, assumed)}",
        f"  of a uniform grid of the finest patches {planned.uniform_tokens_per_sample:,.0f}: "
        f"{planned.tokens_per_sample / planned.uniform_tokens_per_sample:.1%}",
        "",
        f"memory of a rank, GiB   {planned.memory.total / GIB:10.2f}   of {planned.memory_limit / GIB:.1f}",
        *(f"  {name:22}{value / GIB:10.2f}" for name, value in _parts(planned)),
        f"main memory, GiB        {planned.preparation_bytes / GIB:10.2f}   to read and prepare a micro-batch, in "
        f"each of {planned.num_preparing} processes of a rank",
    ]
    if planned.node_memory is not None:
        offloaded = planned.memory.offloaded
        of_what = f", {offloaded / GIB:.1f} of each offloaded" if offloaded else ""
        ranks = f"for ranks {planned.ranks_on_node}{of_what}{'' if planned.fits_node else ': too much'}"
        lines.append(f"{planned.on_node / GIB:34.2f}   of {planned.node_memory / GIB:.1f} that a node has, {ranks}")
    if planned.pinned_bytes:
        pinned = "pinned, from which micro-batches are copied to the GPU ahead of the step"
        lines.append(f"{planned.pinned_bytes / GIB:34.2f}   {pinned}")
    if planned.workers:
        waiting = "at most of micro-batches that data.workers of a rank have read ahead"
        lines.append(f"{planned.waiting_bytes / GIB:34.2f}   {waiting}")
    told = f"communication of a rank and step, in MiB{'calls':>27}{'alone':>12}"
    lines += ["", told if planned.exchanges else "no communication"]
    for e in planned.exchanges:
        times = f"{e.num_calls:20.0f}{e.seconds * 1e3:9.1f} ms"
        lines.append(f"  {e.purpose:10}{e.kind:24}{e.num_bytes / 2**20:10.1f}{times}")
    lines += [
        "",
        f"step, ms                {planned.seconds.total * 1e3:10.1f}",
        *(f"  {PART_NAMES.get(name, name):22}{value * 1e3:10.1f}" for name, value in vars(planned.seconds).items()),
        f"  {'communication share':22}{planned.seconds.communication / planned.seconds.total:10.1%}",
        "",
        f"model FLOPs utilisation {planned.mfu:10.1%}",
        f"tokens per second       {planned.tokens_per_second:10,.0f}",
        f"days for {run.train.steps:,} steps {planned.days:.3g}, node hours {planned.days * 24 * planned.nodes:,.1f}",
    ]
    return "\n".join(lines)


def _source(workload: Workload, assumed: Assumed | None) -> str:
    if assumed is None:
        return f"counted on {len(workload.samples)} windows of the data"
    grids = ", ".join("x".join(map(str, cells)) for cells in assumed.grids)
    rule, amount = workload.config.tokens.rule, workload.config.tokens.refine
    if len(workload.config.patches) == 1:
        how = "one patch size (--grid)"
    elif rule == "threshold":  # depends on the data
        how = f"{assumed.refined:.0%} of the patches split (--grid, --refined)"
    elif rule == "fraction":
        how = f"{amount:.0%} of the patches split, as tokens.refine says (--grid)"
    else:
        how = f"exactly {amount:,.0f} tokens a sample, as tokens.refine says (--grid)"
    return f"not counted on data but assumed: {grids} (z y x), {how}"


def _parts(planned: Estimate) -> list[tuple[str, float]]:
    memory = planned.memory
    parts = [(name, getattr(memory, name)) for name in ("weights", "gradients", "optimizer", "activations")]
    parts += [(f"  {name}", value) for name, value in memory.of_activations.items() if value]
    # The two peaks do not coincide: AdamW's comes after gradients, activations and buffers are released.
    parts += [("communication buffers", memory.communication), ("process", memory.process)]
    return [*parts, ("AdamW's step instead", memory.adam)]


def advice(current: Choice, found: list[tuple[Choice, Estimate]]) -> str:
    """Return a sentence with the change that makes the run fit."""
    nearest = nearest_that_fits(current, found)
    if nearest is None:
        return (
            "It does not fit, nor does any other way to run this global batch here: take more nodes or larger patches."
        )
    choice, planned = nearest
    return (
        f"It does not fit. The nearest that does: {', '.join(choice.changes(current))} "
        f"({planned.memory.total / GIB:.1f} GiB, {planned.seconds.total * 1e3:.0f} ms a step)."
    )


def table(current: Choice, found: list[tuple[Choice, Estimate]], top: int) -> str:
    """Format the fastest choices that fit as a table, with the rank of the current one."""
    fitting = [pair for pair in found if pair[1].fits]
    ranked = list(enumerate(fitting, start=1))
    own = [pair for pair in ranked[top:] if pair[1][0] == current]
    rows = [
        (
            f"{number}{'*' if choice == current else ''} {choice.checkpoint_blocks} {choice.stage} "
            f"{'yes' if choice.bf16 else 'no'} {choice.sequence_parallel_size} {choice.micro_batch} {choice.accumulation} "
            f"{planned.memory.total / GIB:.1f} {planned.seconds.total * 1e3:.1f} {planned.mfu:.1%} {planned.days:.2f}"
        ).split()
        for number, (choice, planned) in [*ranked[:top], *own]
    ]
    head = ["", *"recompute ZeRO bf16 P micro accum GiB ms MFU days".split()]
    first = f"{len(fitting)} of {len(found)} ways to run this global batch fit; the fastest:"
    return f"{first}\n{text_table(head, rows, num_text=2)}\n* as configured; P: ranks to a sequence group"


def reading_text(needed: float, rate: float | None, workers: int, ranks: int, source: str) -> str:
    """Return a line on the rate at which a rank reads, and whether steps wait for it.

    Args:
        needed: bytes of float32 per second that are needed so that no step waits.
        rate: bytes per second that one process reads; None if unknown.
        workers: number of processes of a rank that read ahead; with 0, the rank reads by itself.
        ranks: number of ranks that read.
        source: the source of the rate.
    """
    text = f"reading, MB a second    {needed / MB:10.1f}   of a rank, {ranks * needed / 1e9:,.1f} GB of all"
    if rate is None:
        return f"{text}, so that no step waits; what one process reads is not known (--read_rate)"
    readers, can_read = f"{workers} workers" if workers else "one process", rate * max(1, workers)
    text = f"{text}; {readers} can read {can_read / MB:.1f} ({source})"
    if needed <= can_read:
        return f"{text}: enough"
    times, wanted = needed / can_read, math.ceil(needed / rate)
    return f"{text}: reading is the bottleneck, a step takes {times:.1f} times as long; set data.workers to {wanted}"
