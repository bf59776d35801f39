"""The model of a study: a machine fitted to the measured points, and its predictions for these and for larger points."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matey.checkpoints.run_files import DS_CONFIG
from matey.config import ConfigError, RunConfig
from matey.planning.estimate import Estimate, estimate
from matey.planning.machine import Machine
from matey.planning.workload import Workload, load_workload
from matey.studies.scaling.measured import Row
from matey.studies.scaling.study import Point, Study, make_points, runs_of

NODES = (1, 2, 4, 8, 16, 32, 64, 92, 184, 368, 736, 1472, 2944, 5888)  # a machine may have fewer


@dataclass(frozen=True)
class Model:
    """The run and the data that determine the modelled costs.

    Attributes:
        study: the study whose runs are modelled.
        first: the run at the smallest point.
        samples: global batch of the smallest point.
        deepspeed_config: the configuration of the engine.
        workload: tokens and operations of the run.
    """

    study: Study
    first: RunConfig
    samples: int
    deepspeed_config: dict[str, Any]
    workload: Workload

    @classmethod
    def from_study(cls, study: Study, samples: int) -> Model:
        """Read a study's run and count the tokens of its data; ``samples`` is the global batch of the first point."""
        first = study.points[0]
        run = study.run_of(first)
        deepspeed_config = json.loads((study.folder_of(first) / DS_CONFIG).read_text(encoding="utf-8"))
        return cls(study, run, samples, deepspeed_config, load_workload(run))

    def costs(self, points: Sequence[Point], machine: Machine) -> list[Estimate]:
        """Return the cost of each point that the machine and the batch allow."""
        found = []
        for point in points:
            try:
                (run,) = runs_of(self.study.mode, self.first, [point], self.samples)
                found.append(cost_of(run, self.deepspeed_config, machine, point, self.workload))
            except ConfigError:  # the global batch does not divide among the ranks, or the machine has fewer nodes
                continue
        return found

    def extended(self, machine: Machine) -> list[Estimate]:
        """Return the costs on numbers of a machine's nodes beyond the measured points."""
        return self.costs(make_points(NODES, machine.devices_per_node), machine)

    def fitted(self, machine: Machine, measured: Mapping[Point, Row]) -> Machine:
        """Return the machine with its speeds of computing and of each kind of collective fitted to the measured steps.

        Each speed has one factor, the median over the points of measured over modelled seconds. Points whose ranks share cores
        count only if there are no others, because their ranks also wait for a core.
        """
        own = {point: seen for point, seen in measured.items() if not seen.shares_cores} or measured
        computing: list[float] = []
        by_kind: dict[str, list[float]] = {}
        for point, seen in own.items():
            for cost in self.costs([point], machine):
                share = seen.communication_share or 0.0
                computing.append(seen.seconds * (1 - share) / cost.seconds.compute)
                for kind, modelled in cost.by_kind("seconds").items():
                    if modelled > 0 and kind in seen.traffic:
                        by_kind.setdefault(kind, []).append(seen.traffic[kind]["seconds"] / modelled)
        slower = statistics.median(computing) if computing else 1.0
        factors = {kind: machine.factors.get(kind, 1.0) * statistics.median(ratios) for kind, ratios in by_kind.items()}
        return machine.model_copy(
            update={
                "achieved": {precision: share / slower for precision, share in machine.achieved.items()},
                "memory_bandwidth": machine.memory_bandwidth / slower,
                "kernel_seconds": machine.kernel_seconds * slower,
                "factors": machine.factors | factors,
            }
        )


def cost_of(
    run: RunConfig, deepspeed_config: dict[str, Any], machine: Machine, point: Point, workload: Workload
) -> Estimate:
    """Return the cost of a run at a point; ranks that share a node's cores each compute on as many as their threads.

    Raises:
        ConfigError: the run has no estimate at the point, see `estimate`.
    """
    if point.nodes is not None:
        machine.check_nodes(point.nodes)
    machine = machine.on_threads(point.ranks, run.parallel.threads)
    return estimate(run, deepspeed_config, machine, ranks=point.ranks, workload=workload)
