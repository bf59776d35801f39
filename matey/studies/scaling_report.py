"""The report of a scaling study: its measured points beside a model that is fitted to them, as table, plots and one page.

In the plots, measured points are filled, modelled points hollow, ideals dashed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from textwrap import fill
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from matey.checkpoints.run_files import DS_CONFIG, METRICS, REPORT
from matey.config import ConfigError, RunConfig
from matey.data.trajectories import DataError
from matey.planning.estimate import Estimate
from matey.planning.machine import Machine, load_machine
from matey.planning.workload import Workload, load_workload
from matey.report.plots import COLOURS, STYLE
from matey.report.png import write_png
from matey.studies.engine import TEXT, write_table
from matey.studies.page import write_page
from matey.studies.scaling import LENGTHS_FILE, Point, Study, cost_of, make_points, runs_of, steps_of
from matey.text_table import text_table

MEASURED, MODELLED, IDEAL = COLOURS[0], COLOURS[1], "#7A7A7A"
NODES = (1, 2, 4, 8, 16, 32, 64, 92, 184, 368, 736, 1472, 2944, 5888)  # a machine may have fewer
MODES = {
    "weak": "Weak scaling: every rank has as many samples at all points, so that tokens per second should grow with the ranks.",
    "strong": "Strong scaling: the global batch is the same at all points, so that a step should take less time on more ranks.",
    "sequence": "Sequence parallelism: all ranks share the tokens of one sample, so that a rank should hold fewer of them.",
}
READING = (
    "Step: median. Efficiency: tokens per second and rank over those of the smallest point. CPU time: that of all ranks in a "
    "step. In the plots, filled is measured and hollow modelled; dashed is what ideal scaling from the smallest point gives."
)
WIDTH = 118


@dataclass(frozen=True)
class Row:
    """One point, measured or modelled; None stands for values that a kind of row does not have.

    Attributes:
        kind: origin of the numbers.
        ranks: number of ranks of the point.
        nodes: number of nodes that the ranks fill; None on one machine.
        samples: number of samples of a step.
        seconds: median of the seconds of a step.
        tokens_per_second: tokens per second of all ranks.
        samples_per_second: samples per second of all ranks.
        peak_memory_bytes: largest peak memory of a rank.
        efficiency: tokens per second and rank, divided by those of the smallest point of the same kind.
        num_cores: number of cores of all ranks together; None if each rank is modelled on its own device.
        cpu_seconds: CPU time of a step on all ranks, in seconds.
        total_memory_bytes: peak memory of all ranks together.
        communication_share: share of a step spent in communication if nothing overlaps; measured in steps whose
            communication is counted, None without such steps.
        longest_tokens: number of tokens of the longest sample whose activations fit the study's limit.
        traffic: seconds of the communication of rank 0 in a step for each kind of collective; empty if not counted.
    """

    kind: Literal["measured", "modelled"]
    ranks: int
    nodes: int | None
    samples: int
    seconds: float
    tokens_per_second: float
    samples_per_second: float
    peak_memory_bytes: float
    efficiency: float | None = None
    num_cores: float | None = None
    cpu_seconds: float | None = None
    total_memory_bytes: float | None = None
    communication_share: float | None = None
    longest_tokens: float | None = None
    traffic: dict[str, float] = field(default_factory=dict)

    @property
    def shares_cores(self) -> bool:
        """Whether ranks had less than one core each, so that wall time does not show how the run scales."""
        return self.num_cores is not None and self.num_cores < self.ranks


def write_report(study: Study) -> str:
    """Write points.csv, results.txt, points.png and report.html into the study's folder; return the text of results.txt.

    Raises:
        ConfigError: a study for one machine has no measurement, or a machine is unknown.
    """
    rows, note = collect(study)
    text = "\n\n".join(fill(part, WIDTH) if "\n" not in part else part for part in _paragraphs(study, rows, note))
    columns = [each.name for each in fields(Row) if each.name != "traffic"]
    table = [{name: getattr(row, name) for name in (*columns, "shares_cores")} for row in rows]
    write_table(study.folder / "points.csv", table)
    (study.folder / TEXT).write_text(f"{text}\n", encoding="utf-8")
    write_png(scaling_figure(rows), study.folder / "points.png")
    write_page(study.folder / REPORT, [study.folder])
    return f"{text}\n\nTable: {study.folder / 'points.csv'}   report: {study.folder / REPORT}"


def collect(study: Study) -> tuple[list[Row], str]:
    """Read the measurements, and model the same points and, of a study of nodes, larger ones; also return a note on the model.

    Raises:
        ConfigError: a study for one machine has no measurement, or a machine is unknown.
    """
    measured = {point: row for point in study.points if (row := read_measured(study, point))}
    on_nodes = study.points[0].nodes is not None
    if not measured and not on_nodes:
        raise ConfigError(
            f"No point of {study.folder} has a step beyond the warm-up of {study.warm_up}; start `run` first, and look at "
            "its logs/ if it failed."
        )
    rows = with_efficiency(list(measured.values()))
    try:
        model = Model.from_study(study)
    except DataError as error:
        return rows, f"There is no model here, since the data cannot be read: {error}"
    given = load_machine(study.machine)
    machine = model.fitted(given, measured)
    costs = model.costs(study.points, machine)
    if on_nodes:
        known = {point.ranks for point in study.points}
        larger = make_points(NODES, machine.devices_per_node)
        costs += [cost for cost in model.costs(larger, machine) if cost.ranks not in known]
    rows += with_efficiency([modelled_row(study, cost, given, on_nodes=on_nodes) for cost in costs])
    rows.sort(key=lambda row: (row.ranks, row.kind))
    return rows, note_of(given, machine) if measured else f"The model is that of {given.name}'s file."


def read_measured(study: Study, point: Point) -> Row | None:
    """Read the measurements of a point as medians over its steps; None if no step follows the warm-up."""
    folder = study.folder_of(point)
    lines = [line for line in steps_of(folder / "run" / METRICS) if line["step"] > study.warm_up]
    counted = [line for line in lines if "traffic" in line]
    # Steps whose communication is counted are slower, and used only if there are no others.
    steps = [line for line in lines if "traffic" not in line] or counted
    if not steps:
        return None
    seconds, samples = statistics.median(line["seconds"] for line in steps), samples_of_step(study, point)
    kinds = sorted({kind for line in counted for kind in line["traffic"]})
    longest, found = None, folder / LENGTHS_FILE
    if study.lengths and found.exists():
        longest = study.lengths.longest(json.loads(found.read_text(encoding="utf-8")))
    shares = [sum(kind["seconds"] for kind in line["traffic"].values()) / line["seconds"] for line in counted]
    return Row(
        kind="measured",
        ranks=point.ranks,
        nodes=point.nodes,
        samples=samples,
        seconds=seconds,
        tokens_per_second=statistics.median(line["num_tokens"] / line["seconds"] for line in steps),
        samples_per_second=samples / seconds,
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in lines),
        num_cores=steps[-1]["num_cores"],
        cpu_seconds=statistics.median(line["cpu_seconds"] for line in steps),
        total_memory_bytes=max(line["total_memory_bytes"] for line in lines),
        communication_share=statistics.median(shares) if shares else None,
        longest_tokens=longest,
        traffic={
            kind: statistics.median(line["traffic"].get(kind, {"seconds": 0.0})["seconds"] for line in counted)
            for kind in kinds
        },
    )


def samples_of_step(study: Study, point: Point) -> int:
    """Return the global batch of a point."""
    run = study.run_of(point)
    size = run.parallel.sequence_parallel_size
    assert size != "auto", "a study is not planned with it"
    return run.train.micro_batch * run.train.accumulation * point.ranks // size


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
    def from_study(cls, study: Study) -> Model:
        """Read a study's run and count the tokens of its data."""
        first = study.points[0]
        run = study.run_of(first)
        deepspeed_config = json.loads((study.folder_of(first) / DS_CONFIG).read_text(encoding="utf-8"))
        return cls(study, run, samples_of_step(study, first), deepspeed_config, load_workload(run))

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
                        by_kind.setdefault(kind, []).append(seen.traffic[kind] / modelled)
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


def modelled_row(study: Study, cost: Estimate, machine: Machine, *, on_nodes: bool) -> Row:
    """Return the modelled row of a point on a machine."""
    return Row(
        kind="modelled",
        ranks=cost.ranks,
        nodes=cost.nodes if on_nodes else None,
        samples=cost.samples_per_step,
        seconds=cost.seconds.total,
        tokens_per_second=cost.tokens_per_second,
        samples_per_second=cost.samples_per_step / cost.seconds.total,
        peak_memory_bytes=cost.memory.total,
        num_cores=cost.nodes * machine.devices_per_node if machine.shared_devices else None,
        communication_share=cost.seconds.communication / cost.seconds.total,
        # Where a length can be measured, the measurement says more than an estimate of the blocks alone.
        longest_tokens=study.lengths.expected(cost.ranks) if study.lengths and on_nodes else None,
    )


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """Fill in the efficiency of rows of one kind, in order of ranks, by comparison with the first row."""
    rows = sorted(rows, key=lambda row: row.ranks)
    return [
        replace(row, efficiency=row.tokens_per_second / row.ranks / (rows[0].tokens_per_second / rows[0].ranks))
        for row in rows
    ]


def note_of(given: Machine, fitted: Machine) -> str:
    """Return a sentence that describes the fitted machine."""
    slower = given.memory_bandwidth / fitted.memory_bandwidth  # the fit scales all rates of computing by this factor
    kinds = [kind for kind in fitted.factors if fitted.factors[kind] != given.factors.get(kind)]
    factors = ", ".join(f"{kind} {fitted.factors[kind] / given.factors.get(kind, 1.0):.2f}" for kind in kinds)
    collectives = f"; collectives, of which those counted hold waiting too: {factors}" if kinds else ""
    return (
        "The model has the rates and links of a machine file, and one factor for each of these, fitted to the measured steps: "
        f"computing takes {slower:.2f} times what the file of {given.name} gives{collectives}."
    )


def _paragraphs(study: Study, rows: Sequence[Row], note: str) -> Iterator[str]:
    run, measured = study.run_of(study.points[0]), [row for row in rows if row.kind == "measured"]
    yield MODES[study.mode]
    yield (
        f"Model: {run.model.size} {run.model.scheme}, {run.tokens.set} patches "
        f"{[list(patch) for patch in run.tokens.patches]}, on {', '.join(data.path for data in run.data.sets)}"
    )
    if missing := [str(point) for point in study.points if point.ranks not in {row.ranks for row in measured}]:
        yield f"Not measured: {', '.join(missing)}."
    if shared := [row for row in measured if row.shares_cores]:
        yield (
            f"{' and '.join(f'{row.ranks} ranks share {row.num_cores:g} cores' for row in shared)}: there, wall-clock time "
            "and efficiency are not meaningful (crossed). What counts is the CPU time and the memory of all ranks together."
        )
    head = ("", "ranks", "samples", "step", "tokens/s", "efficiency", "CPU time", "memory: rank, all", "communication")
    yield text_table(head, [cells_of(row) for row in rows])
    yield READING
    yield from _lengths(study, rows)
    yield note


def cells_of(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    total = "" if row.total_memory_bytes is None else f", {row.total_memory_bytes / 2**30:.2f}"
    return (
        row.kind,
        str(row.ranks),
        str(row.samples),
        f"{row.seconds:.3g} s",
        f"{row.tokens_per_second:,.0f}",
        "shared cores" if row.shares_cores else f"{row.efficiency:.0%}",
        "" if row.cpu_seconds is None else f"{row.cpu_seconds:.3g} s",
        f"{row.peak_memory_bytes / 2**30:.2f}{total} GiB",
        "" if row.communication_share is None else f"{row.communication_share:.0%}",
    )


def _lengths(study: Study, rows: Sequence[Row]) -> Iterator[str]:
    known = [(row, row.longest_tokens) for row in rows if row.longest_tokens is not None]
    if study.lengths is None or not known:
        return
    lengths = study.lengths
    assert lengths.limit is not None, "it is measured before any point"
    yield (
        f"Longest sequence: tokens of one sample in {lengths.case['dtype']} whose activations take at most "
        f"{lengths.limit / 2**20:,.0f} MiB on a rank. Measured: on a line through two made-up samples that about fit, on "
        "grids that grow along their first axis; modelled: by what the blocks alone keep, shared out evenly. A sample of "
        f"{'x'.join(map(str, lengths.case['grid']))} cells has {lengths.num_tokens:,} tokens."
    )
    cells = [
        (row.kind, str(row.ranks), f"{tokens:,.0f}", f"{tokens / lengths.num_tokens:.2f}") for row, tokens in known
    ]
    yield text_table(("", "ranks", "tokens", "over that sample"), cells)


@matplotlib.rc_context(STYLE)
def scaling_figure(rows: Sequence[Row]) -> Figure:
    """Draw throughput, efficiency, memory per rank and share of communication against the number of ranks."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    (throughput, efficiency), (memory, communication) = figure.subplots(2, 2)
    _draw(throughput, rows, lambda row: row.tokens_per_second)
    ends = [min(row.ranks for row in rows), max(row.ranks for row in rows)]
    own = rows[0].tokens_per_second / rows[0].ranks
    throughput.plot(ends, [own * ranks for ranks in ends], "--", color=IDEAL, linewidth=1, label="ideal", zorder=1)
    throughput.set(title="tokens per second", yscale="log")
    _draw(efficiency, rows, lambda row: row.efficiency)
    doubtful = [row for row in rows if row.shares_cores]
    efficiency.plot([r.ranks for r in doubtful], [r.efficiency for r in doubtful], "x", color="black", ms=9, zorder=3)
    efficiency.axhline(1, linestyle="--", color=IDEAL, linewidth=1)
    efficiency.set(title="efficiency" + (" (crossed: ranks share cores, not meaningful)" if doubtful else ""))
    _draw(memory, rows, lambda row: row.peak_memory_bytes / 2**30)
    memory.set(title="memory of the fullest rank, GiB")
    _draw(communication, rows, lambda row: row.communication_share)
    communication.set(title="communication's share of a step, nothing overlapping")
    ranks = sorted({row.ranks for row in rows})
    for axes in (efficiency, memory, communication):
        axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 0.01))
    for axes in (throughput, efficiency, memory, communication):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [str(number) for number in ranks], rotation=45 if len(ranks) > 8 else 0, fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("ranks")
    throughput.legend(fontsize=8)
    return figure


def _draw(axes: Axes, rows: Sequence[Row], value: Callable[[Row], float | None]) -> None:
    """Draw a number of the rows that have it."""
    for kind, colour, fill_colour, size in (("modelled", MODELLED, "white", 7), ("measured", MEASURED, MEASURED, 4.5)):
        own = [(row.ranks, number) for row in rows if row.kind == kind and (number := value(row)) is not None]
        if own:
            axes.plot(*zip(*own, strict=True), "-o", color=colour, mfc=fill_colour, ms=size, lw=1.2, label=kind)
