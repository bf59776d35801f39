"""Plans a run before it costs node hours, for tools/plan.py."""

from __future__ import annotations

import argparse
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from matey.config import RunConfig
from matey.mistakes import Mistake
from matey.model.configuration import MateyConfig, with_network_of
from matey.planning import is_at_hand
from matey.planning.estimate import estimate
from matey.planning.machine import Machine
from matey.planning.workload import Assumed, load_workload
from matey.train.finetune import load_source

PAGES = Environment(loader=PackageLoader("matey.commands", "."), trim_blocks=True, undefined=StrictUndefined)


def main(args: argparse.Namespace, run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine) -> int:
    """Print the estimate; return 0, or 1 if the run does not fit."""
    run, pretrained, notes = as_pretrained(run)
    assumed = None
    if args.grid is not None or not is_at_hand(run):
        assumed = Assumed(tuple(args.grid or [(1, 128, 128)]), args.refined, args.fields)
    workload = load_workload(run, assumed, pretrained=pretrained)
    ranks = args.ranks or args.nodes * machine.devices_per_node
    planned = estimate(run, deepspeed_config, machine, ranks=ranks, workload=workload)
    facts = {"run": run, "machine": machine, "assumed": assumed, "workload": workload, "planned": planned}
    print(PAGES.get_template("plan.txt").render(facts, notes=notes))
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
