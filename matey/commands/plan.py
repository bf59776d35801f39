"""Plans a run before it costs node hours, for tools/plan.py."""

from __future__ import annotations

import argparse
import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from matey.config import RunConfig
from matey.mistakes import Mistake
from matey.model.configuration import MateyConfig, with_network_of
from matey.planning import is_at_hand
from matey.planning.estimate import Choice, Estimate, choice_of, estimate, nearest_that_fits, search
from matey.planning.machine import Machine
from matey.planning.workload import Assumed, load_workload
from matey.text_table import text_table
from matey.train.finetune import load_source

GIB, MB = 2**30, 1e6
PAGES = Environment(loader=PackageLoader("matey.commands", "."), trim_blocks=True, undefined=StrictUndefined)


def main(args: argparse.Namespace, run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine) -> int:
    """Print the estimate and, if asked or if the run does not fit, other ways to run it; return the exit code of the tool."""
    run, pretrained, notes = as_pretrained(run)
    assumed = None
    if args.grid is not None or not is_at_hand(run):
        assumed = Assumed(tuple(args.grid or [(1, 128, 128)]), args.refined, args.fields)
    workload = load_workload(run, assumed, pretrained=pretrained)
    ranks = args.ranks or args.nodes * machine.devices_per_node
    planned = estimate(run, deepspeed_config, machine, ranks=ranks, workload=workload)
    rate = None if args.read_rate is None else args.read_rate * MB
    reading = reading_text(planned.read_bytes / planned.seconds.total, rate, planned.workers, planned.ranks)
    facts = {"run": run, "machine": machine, "assumed": assumed, "workload": workload, "planned": planned}
    print(PAGES.get_template("plan.txt").render(facts, notes=notes, reading=reading))
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
    except Mistake as error:
        absent = f"The network is that of the YAML alone, since its pretrained model is not there: {error}"
        return run, None, [absent, *notes]
    if source is None:
        return run, None, notes
    return with_network_of(run, source.model.config), source.model.config, notes


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
    rows = [
        (
            f"{number}{'*' * (choice == current)} {choice.checkpoint_blocks} {choice.stage} "
            f"{'yes' if choice.bf16 else 'no'} {choice.sequence_parallel_size} {choice.micro_batch} {choice.accumulation} "
            f"{planned.memory.total / GIB:.1f} {planned.seconds.total * 1e3:.1f} {planned.mfu:.1%} {planned.days:.2f}"
        ).split()
        for number, (choice, planned) in enumerate(fitting, start=1)
        if number <= top or choice == current
    ]
    head = ["", *"recompute ZeRO bf16 P micro accum GiB ms MFU days".split()]
    first = f"{len(fitting)} of {len(found)} ways to run this global batch fit; the fastest:"
    return f"{first}\n{text_table(head, rows, num_text=2)}\n* as configured; P: ranks to a sequence group"


def reading_text(needed: float, rate: float | None, workers: int, ranks: int) -> str:
    """Return a line on the rate at which a rank reads, and whether steps wait for it.

    Args:
        needed: bytes of float32 per second that are needed so that no step waits.
        rate: bytes per second that one process reads; None if unknown.
        workers: number of processes of a rank that read ahead; with 0, the rank reads by itself.
        ranks: number of ranks that read.
    """
    text = f"reading, MB a second    {needed / MB:10.1f}   of a rank, {ranks * needed / 1e9:,.1f} GB of all"
    if rate is None:
        return f"{text}, so that no step waits; what one process reads is not known (--read_rate)"
    wanted = math.ceil(needed / rate)
    verdict = "enough" if wanted <= max(1, workers) else f"reading is the bottleneck; set data.workers to {wanted}"
    return f"{text}; with data.workers {workers} it can read {rate * max(1, workers) / MB:.1f}: {verdict}"
