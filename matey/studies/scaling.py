"""A scaling study on disk: the same few steps of a run on several numbers of ranks or nodes, planned and run.

Its folder has ``study.json`` and, for each point, the run YAML, DeepSpeed's JSON, a job, and later the run.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import torch

from matey.benchmark.sequence_speed import longer, longest, run_point
from matey.benchmark.speed_cases import Case
from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import DS_CONFIG, METRICS
from matey.checkpoints.trained import read_log
from matey.config import ConfigError, RunConfig, dump_config, load_config
from matey.data import open_dataset
from matey.data.remote import within
from matey.model.blocks import scheme_keys
from matey.model.configuration import model_config
from matey.planning.estimate import Estimate, estimate
from matey.planning.machine import Machine
from matey.planning.workload import Workload, load_workload
from matey.studies.cases import StudyError
from matey.studies.engine import STUDY, call, submit_once
from matey.tokens.tokenize import tokenize
from matey.train.memory import activation_bytes

Mode = Literal["weak", "strong", "sequence"]
RUN, JOB, SLURM_JOB = "run.yaml", "job.sh", "job.sbatch"  # files of a point
LENGTHS_FILE = "lengths.json"
COUNTED_STEPS = 3  # last steps of a run; counting their communication slows them down, so they are not timed

# Options that a point sets itself; the script's other options are kept.
OWN_OPTIONS = ("-J", "--job-name", "-N", "--nodes", "-t", "--time", "-o", "--output", "--open-mode", "--signal")


@dataclass(frozen=True)
class Point:
    """One size of the machine, a point of the study.

    Attributes:
        name: name of the point's folder in the study's folder.
        ranks: number of processes.
        nodes: number of nodes that the processes fill; None if they are started on this machine.
    """

    name: str
    ranks: int
    nodes: int | None = None

    def __str__(self) -> str:
        """Return the size in words."""
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        return ranks if self.nodes is None else f"{self.nodes} node{'s' * (self.nodes > 1)}, {ranks}"


@dataclass(frozen=True)
class Lengths:
    """A search for the longest sequence that fits.

    Attributes:
        case: the sample on one rank, with the run's model, from `matey.benchmark.speed_cases.Case.to_json`.
        num_tokens: number of tokens of the sample.
        activation_bytes: bytes of the sample's activations on one rank; until measured, those of the blocks, which training
            estimates in advance.
        limit: largest bytes of a rank's activations; None until measured for the sample on one rank.
        is_measured: whether the activations of the sample on one rank are measured.
    """

    case: dict[str, Any]
    num_tokens: int
    activation_bytes: int
    limit: float | None
    is_measured: bool = False

    def expected(self, ranks: int) -> float | None:
        """Return how many tokens should fit on some ranks if these share activations evenly."""
        return None if self.limit is None else self.num_tokens * self.limit / self.activation_bytes * ranks

    def measured(self, seconds: float) -> Lengths:
        """Measure the sample's activations on one rank within a time limit in seconds; they are the limit if there is none."""
        taken = max(run_point(Case.from_json(self.case), 1, limit=seconds)["activation_bytes"])
        return replace(self, activation_bytes=taken, limit=self.limit or taken, is_measured=True)

    def measure(self, ranks: int, seconds: float) -> list[dict[str, Any]]:
        """Measure two samples on some ranks: one that should fit, and one chosen to fit by the first one's memory.

        Raises:
            RuntimeError: a rank failed, or a sample took longer than ``seconds``.
        """
        case = Case.from_json(self.case)
        expected = self.expected(ranks)
        assert expected is not None and self.limit is not None, "the limit is measured first"
        first = longer(case, expected / self.num_tokens)
        taken = run_point(first, ranks, limit=seconds)
        second = longer(case, first.grid[0] / case.grid[0] * self.limit / max(taken["activation_bytes"]))
        if second.grid == first.grid:
            second = replace(first, grid=(first.grid[0] + case.coarse_cells, *first.grid[1:]))
        return [taken, run_point(second, ranks, limit=seconds)]

    def longest(self, points: Sequence[dict[str, Any]]) -> float | None:
        """Return how many tokens fit, on a line through two points; None if a rank exceeds the limit without tokens."""
        assert self.limit is not None, "the limit is measured before any point"
        tokens = longest(points, self.limit)
        return tokens if tokens > 0 else None


@dataclass(frozen=True)
class Study:
    """The contents of ``study.json``.

    Attributes:
        folder: the folder of the study.
        mode: the quantity that stays the same from point to point: the samples of a rank, the global batch, or the single
            sample.
        machine: the machine for which the points' costs are estimated.
        warm_up: number of first steps that are not timed.
        steps: number of steps of each run, including the warm-up and the steps whose communication is counted.
        points: the points, ordered by size.
        lengths: the search for the longest sequence, for the mode ``sequence``.
    """

    folder: Path
    mode: Mode
    machine: str
    warm_up: int
    steps: int
    points: tuple[Point, ...]
    lengths: Lengths | None = None

    def folder_of(self, point: Point) -> Path:
        """Return the absolute folder of a point."""
        return self.folder.absolute() / point.name

    def run_of(self, point: Point) -> RunConfig:
        """Read the run of a point."""
        return load_config(self.folder_of(point) / RUN)

    def write(self) -> None:
        """Write ``study.json``."""
        tree = {name: value for name, value in asdict(self).items() if name != "folder"}
        replace_text(self.folder / STUDY, json.dumps(tree, indent=2) + "\n")


def load_study(folder: Path) -> Study:
    """Read the study in a folder, which holds one."""
    tree = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    points = tuple(Point(**point) for point in tree.pop("points"))
    lengths = tree.pop("lengths")
    return Study(folder, points=points, lengths=Lengths(**lengths) if lengths else None, **tree)


def make_study(
    folder: Path,
    mode: Mode,
    run: RunConfig,
    deepspeed_config: dict[str, Any],
    points: Sequence[Point],
    machine_name: str,
    machine: Machine,
    *,
    warm_up: int,
    timed_steps: int,
    global_batch: int | None = None,
    lengths: Lengths | None = None,
    script: Path | None = None,
    minutes: int = 30,
) -> tuple[Study, list[RunConfig], list[Estimate]]:
    """Write a study into a folder; return the study, and for each point the run and its expected cost.

    Args:
        folder: a folder that holds no study yet.
        mode: the quantity that stays the same from point to point.
        run: the run at the smallest point.
        deepspeed_config: the configuration of the engine, the same at all points.
        points: the points, ordered by size.
        machine_name: name of the machine, or the path of its file.
        machine: the machine for which costs are estimated.
        warm_up: number of first steps that are not timed.
        timed_steps: number of timed steps after the warm-up.
        global_batch: number of samples of a step, for the mode ``strong``; by default that of the smallest point.
        lengths: the search for the longest sequence, for the mode ``sequence``.
        script: the job script on which the points' jobs are based; None for points on this machine.
        minutes: time limit of a job in minutes.

    Raises:
        ConfigError: the folder holds a study, the run does not fit a point, or the script is not one for this machine.
    """
    if (folder / STUDY).exists():
        raise ConfigError(f"{folder} holds a study already; choose another --out, or remove it.")
    if timed_steps < 1 or warm_up < 0:
        raise ConfigError(f"A study times at least one step after its warm-up, got {timed_steps} after {warm_up}.")
    if script is not None and (tasks := tasks_per_node(script)) not in (None, machine.devices_per_node):
        raise ConfigError(
            f"{script} starts {tasks} tasks on a node and {machine.name} has {machine.devices_per_node} GPUs; change the "
            "script, or choose the machine that it is for."
        )
    study = Study(folder, mode, machine_name, warm_up, warm_up + timed_steps + COUNTED_STEPS, tuple(points), lengths)
    # The same number at all points, as ranks would otherwise be faster at points with fewer ranks.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // points[-1].ranks) if script is None else None
    runs = runs_of(mode, run, points, global_batch)
    runs = [
        timed(own, study.folder_of(point), warm_up, timed_steps, threads)
        for own, point in zip(runs, points, strict=True)
    ]
    workload = load_workload(run)
    costs = []
    for point, own in zip(points, runs, strict=True):
        costs.append(cost_of(own, deepspeed_config, machine, point, workload))
        job = local_job(study, point) if script is None else slurm_job(study, point, script, minutes)
        files = {
            RUN: dump_config(own),
            DS_CONFIG: json.dumps(deepspeed_config, indent=2) + "\n",
            JOB if script is None else SLURM_JOB: job,
        }
        study.folder_of(point).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (study.folder_of(point) / name).write_text(text, encoding="utf-8")
    (folder / "logs").mkdir()  # Slurm does not make the folder
    study.write()
    return study, runs, costs


def make_points(sizes: Sequence[int], devices_per_node: int | None) -> list[Point]:
    """Return points with these numbers of ranks or, if ``devices_per_node`` is given, with these numbers of nodes."""
    if wrong := [size for size in sizes if size < 1]:
        raise ConfigError(f"A point has at least one rank or node, got {wrong[0]}.")
    unit = "ranks" if devices_per_node is None else "nodes"
    width = len(str(max(sizes)))
    names = {size: f"{unit}_{size:0{width}}" for size in sorted(set(sizes))}
    if devices_per_node is None:
        return [Point(name, size) for size, name in names.items()]
    return [Point(name, size * devices_per_node, size) for size, name in names.items()]


def runs_of(mode: Mode, run: RunConfig, points: Sequence[Point], global_batch: int | None = None) -> list[RunConfig]:
    """Return the run at each point, with the batch and the sequence groups of the mode.

    Args:
        mode: mode of the study.
        run: the run at the smallest point.
        points: the points, ordered by size.
        global_batch: number of samples of a step in the mode ``strong``; by default that of the smallest point.

    Raises:
        ConfigError: sequence groups do not fit the ranks, or the global batch does not fit the groups.
    """
    if mode == "sequence":
        return [_with(run, point.ranks, 1, 1) for point in points]
    size = run.parallel.sequence_parallel_size
    if size == "auto":
        raise ConfigError(
            "parallel.sequence_parallel_size is 'auto': in a study it must be the same number at all points."
        )
    if wrong := [point for point in points if point.ranks % size]:
        raise ConfigError(
            f"parallel.sequence_parallel_size is {size}, which does not divide the {wrong[0].ranks} ranks of a point; "
            "leave that point out, or choose a size that divides all."
        )
    groups = [point.ranks // size for point in points]
    if mode == "weak":
        return [_with(run, size, run.train.micro_batch, run.train.accumulation) for _ in points]
    batch = global_batch or run.train.micro_batch * run.train.accumulation * groups[0]
    if uneven := [count for count in groups if batch % count]:
        raise ConfigError(
            f"A global batch of {batch} samples cannot be divided evenly among the {uneven[0]} groups of a point; give a "
            f"multiple of {math.lcm(*groups)} as --global_batch, or leave that point out."
        )
    return [_with(run, size, *_micro_steps(batch // count, run.train.micro_batch)) for count in groups]


def timed(run: RunConfig, folder: Path, warm_up: int, timed_steps: int, threads: int | None) -> RunConfig:
    """Return a run that takes a few steps, logs all of them, and writes to the folder of its point.

    Args:
        run: the run at the point.
        folder: the folder of the point.
        warm_up: number of steps before the timed ones.
        timed_steps: number of timed steps.
        threads: number of threads of a process; the run's own setting takes precedence.
    """
    steps = warm_up + timed_steps + COUNTED_STEPS
    train = {
        "steps": steps,
        "count_traffic": COUNTED_STEPS,
        "log_every": 1,
        "validate_every": steps,
        "validation_windows": 1,
        "checkpoint_every": steps,
        "keep_checkpoints": 1,
    }
    sets = tuple(data.model_copy(update={"path": str(within(Path.cwd(), data.path))}) for data in run.data.sets)
    return run.model_copy(
        update={
            "data": run.data.model_copy(update={"sets": sets, "validate_on": ()}),
            "train": run.train.model_copy(update=train),
            "parallel": run.parallel.model_copy(update={"threads": run.parallel.threads or threads}),
            "output": run.output.model_copy(update={"dir": str(folder / "run")}),
        }
    )


def lengths_of(
    run: RunConfig, grid: tuple[int, ...] | None, limit: float | None, precision: str, *, can_measure: bool
) -> Lengths:
    """Return the search for the longest sequence of a run.

    Args:
        run: the run with the network and history to use. A share of the patches is refined (a quarter if the run has
            another rule), because the measured samples are not the run's own.
        grid: cells of a sample for one rank; by default those of the run's first data set.
        limit: largest bytes of a rank's activations; by default those of this sample on one rank.
        precision: precision of weights and activations, as in `matey.planning.engine.EngineSettings`.
        can_measure: whether the default limit is measured instead of estimated as in training.
    """
    data = open_dataset(run.data.sets[0].path, run.data.sets[0].description)
    grid = grid or tuple(data.trajectories[0].grid[-2 if data.trajectories[0].grid[0] == 1 else -3 :])
    share = run.tokens.refine if run.tokens.rule == "fraction" else Case.refine
    tokens = run.tokens.model_copy(update={"rule": "fraction", "refine": share})
    model = run.model.model_copy(update={"fields": (), "given": (), "parameters": ()})
    case = Case(
        grid=grid,
        frames=run.data.history,
        fields=len(data.fields),
        batch=1,
        checkpoint_blocks=run.parallel.checkpoint_blocks,
        dtype=getattr(torch, precision),
        config=model_config(run.model_copy(update={"model": model, "tokens": tokens})).to_dict(),
    )
    config = case.make_config()
    num_tokens = tokenize([case.make_batch()], config.patches, config.refinement).layout.num_tokens
    attentions = len(scheme_keys(config.scheme, config.patches))
    kept = activation_bytes(config, num_tokens, attentions, case.checkpoint_blocks, case.dtype.itemsize)
    return Lengths(case.to_json(), num_tokens, kept, limit or (None if can_measure else kept))


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


def run_here(study: Study, root: Path, limit: float, say: Callable[[str], None]) -> list[str]:
    """Run every unfinished point, each with a time limit; return the errors, one line per failed point.

    Args:
        study: a study whose points have jobs for this machine.
        root: root folder of the repository.
        limit: time limit in seconds; a run that takes longer is asked to save and stop, and the next call continues
            it.
        say: function that prints a line.

    Raises:
        ConfigError: the study's points are on nodes.
    """
    if study.points[0].nodes is not None:
        raise ConfigError(
            f"{study.folder} is a study of nodes, whose jobs are for Slurm: use --submit, or plan with --ranks."
        )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    failures = []
    for point in study.points:
        if _is_finished(study, point):
            say(f"{point.name}: finished before")
            continue
        say(f"{point.name}: {point}")
        try:
            job = ["bash", str(study.folder_of(point) / JOB)]
            call(study.folder, point.name, job, root, {"PATH": path}, limit)
            if study.lengths is not None:
                lengths = study.lengths if study.lengths.is_measured else study.lengths.measured(limit)
                study = replace(study, lengths=lengths)
                study.write()
                samples = json.dumps(lengths.measure(point.ranks, limit), indent=1)
                replace_text(study.folder_of(point) / LENGTHS_FILE, f"{samples}\n")
        except StudyError as error:
            failures.append(str(error))
        except RuntimeError as error:  # raised by the measurement of a length after the run
            failures.append(f"{point.name}: {error}")
    return failures


def submit(study: Study, root: Path, options: list[str], say: Callable[[str], None]) -> None:
    """Submit the jobs of all points that are neither finished nor submitted to Slurm; each job waits for the previous one.

    Args:
        study: a study whose points have job scripts.
        root: root folder of the repository, in which the jobs are submitted.
        options: further options of ``sbatch``, such as ``-A PROJECT``.
        say: function that prints a line.

    Raises:
        ConfigError: the study's points are for this machine, or Slurm refuses a job.
    """
    if study.points[0].nodes is None:
        raise ConfigError(f"{study.folder} is a study for one machine: use --local, or plan with --nodes.")
    before: str | None = None
    for point in study.points:
        if _is_finished(study, point):
            say(f"{point.name}: finished before")
            continue
        waits: list[str] = [f"--dependency=afterany:{before}"] if before else []
        folder = study.folder_of(point)
        arguments = [*waits, *options, str(folder / SLURM_JOB)]
        before = submit_once(point.name, folder / "job_id", arguments, root, say)


def steps_of(metrics: Path) -> list[dict[str, Any]]:
    """Return the lines of training steps from a run's log; none before the first."""
    return [line for line in read_log(metrics) if "seconds" in line] if metrics.exists() else []


def _is_finished(study: Study, point: Point) -> bool:
    """Whether a point has nothing left to measure."""
    folder = study.folder_of(point)
    has_lengths = study.lengths is None or point.nodes is not None or (folder / LENGTHS_FILE).exists()
    return max((line["step"] for line in steps_of(folder / "run" / METRICS)), default=0) >= study.steps and has_lengths


def local_job(study: Study, point: Point) -> str:
    """Return a script that starts the ranks of a point on this machine."""
    folder = study.folder_of(point)
    return (
        f"#!/usr/bin/env bash\n# A {study.mode} study at {point}, on this machine; from the repository.\n"
        f"RANKS={point.ranks} DEEPSPEED_CONFIG={quote(str(folder / DS_CONFIG))} "
        f'exec launch/local.sh {quote(str(folder / RUN))} "$@"\n'
    )


def slurm_job(study: Study, point: Point, script: Path, minutes: int) -> str:
    """Return a job script that runs another job script with the nodes, the time and the configuration of a point.

    Args:
        study: the study of the point.
        point: the point to measure.
        script: a job script such as launch/slurm/pretrain.sbatch, relative to the repository: its `#SBATCH` lines are
            copied, and it is run with CONFIG, DEEPSPEED_CONFIG and MAX_JOBS set.
        minutes: time limit of the job in minutes.

    Raises:
        ConfigError: the script is missing, or is not a job script.
    """
    lines = [line for line in _read(script).splitlines() if line.startswith("#SBATCH")]
    if not lines:
        raise ConfigError(f"{script} has no #SBATCH lines; take launch/slurm/pretrain.sbatch or one made from it.")
    folder = study.folder_of(point)
    log = study.folder.absolute() / "logs" / f"{point.name}.txt"
    own = (
        f"--job-name=matey-{study.mode}-{point.name}",
        f"--nodes={point.nodes}",
        f"--time={minutes}",
        f"--output={quote(str(log))}",  # Slurm interprets quotes like a shell
    )
    kept = [line for line in lines if _option(line) not in OWN_OPTIONS]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# A {study.mode} study at {point}; submit from the repository.",
            *(f"#SBATCH {option}" for option in own),
            *kept,
            f"export CONFIG={quote(str(folder / RUN))}",
            f"export DEEPSPEED_CONFIG={quote(str(folder / DS_CONFIG))}",
            f"export VENV=${{VENV:-{quote(sys.prefix)}}}",
            "export MAX_JOBS=1 # a job that does not finish in time is left as it is",
            f"exec bash {quote(str(script))}",
            "",
        ]
    )


def tasks_per_node(script: Path) -> int | None:
    """Return the tasks per node in the options of a job script; None if the script's commands set them."""
    found = re.search(r"^#SBATCH\s+--ntasks-per-node=(\d+)", _read(script), re.MULTILINE)
    return int(found[1]) if found else None


def _read(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot read the job script {script}: {error.strerror}.") from None


def _option(line: str) -> str:
    """Return the name of the option on a line such as `#SBATCH --nodes=4  # nodes`."""
    return re.split(r"[\s=]+", line.removeprefix("#SBATCH").strip(), maxsplit=1)[0]


def _with(run: RunConfig, size: int, micro_batch: int, accumulation: int) -> RunConfig:
    train = run.train.model_copy(update={"micro_batch": micro_batch, "accumulation": accumulation})
    parallel = run.parallel.model_copy(update={"sequence_parallel_size": size})
    return run.model_copy(update={"train": train, "parallel": parallel})


def _micro_steps(samples: int, most: int) -> tuple[int, int]:
    """Divide a group's samples of a step into the largest allowed equal micro-batches; return their size and number."""
    micro_batch = max(size for size in range(1, most + 1) if samples % size == 0)
    return micro_batch, samples // micro_batch
