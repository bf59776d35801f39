"""The sequence-parallel benchmark: compares several numbers of ranks, each measured in its own processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from matey.benchmark.speed_cases import Case
from matey.report.plots import COLOURS

Point = dict[str, Any]
PART_MEASURES = (
    *("peak_memory_bytes", "bytes_read", "layout_bytes", "exchanged_bytes"),
    *("forecast_memory_bytes", "evaluation_memory_bytes"),
)


def run_point(case: Case, ranks: int, repeat: int = 0, limit: float | None = None, before: Case | None = None) -> Point:
    """Measure memory and exchanges of a case on a number of ranks of this machine, and the time of ``repeat`` steps, if any.

    Args:
        case: the case.
        ranks: number of ranks.
        repeat: number of timed steps.
        limit: time limit of the measurement in seconds.
        before: the same model on a smaller grid, for the step before the measured one; by default the case itself.

    Raises:
        RuntimeError: a rank failed; with the end of what it said. Or it took more than ``limit`` seconds.
    """
    settings = case.to_json() | {"repeat": repeat, "before": (before or case).grid}
    name = f"The benchmark of {case.grid} cells"
    (point,) = points_of_ranks("matey.benchmark.sequence_point", settings, ranks, name, limit)
    return point


def points_of_ranks(module: str, settings: Point, ranks: int, name: str, limit: float | None = None) -> list[Point]:
    """Run a module on a number of ranks of this machine and return the points that it printed as lines ``point JSON``.

    Raises:
        RuntimeError: a rank failed; with the end of what it said. Or it took more than ``limit`` seconds.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    command += ["-m", module, json.dumps(settings)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = launcher.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        launcher.terminate()  # it then ends its ranks; a killed launcher would leave them running
        launcher.communicate()
        raise RuntimeError(f"{name} on {ranks} ranks took more than {limit:g} seconds.") from None
    lines = [line[6:] for line in output.splitlines() if line.startswith("point ")]
    if launcher.returncode or not lines:
        raise RuntimeError(f"The benchmark on {ranks} ranks failed:\n{errors[-2000:]}")
    return [json.loads(line) for line in lines]


def longer(case: Case, factor: float) -> Case:
    """Return the case on a grid ``factor`` times as long along its first axis, in whole coarse patches."""
    cells = case.coarse_cells
    first = max(cells, round(case.grid[0] * factor / cells) * cells)
    return replace(case, grid=(first, *case.grid[1:]))


def longest(points: Sequence[Point], limit: float) -> float:
    """Return how many tokens fit into a limit of activations per rank, on the straight line through two measured points."""
    (n0, m0), (n1, m1) = ((p["num_tokens"], max(p["activation_bytes"])) for p in points)
    return n0 + (limit - m0) * (n1 - n0) / (m1 - m0)


def summarise(base: Point, point: Point, tokens_within_limit: float) -> Point:
    """Return a point's row, compared with one process.

    ``exchanged_over_formula`` compares the bytes that a rank puts into the attentions' exchanges of a forward pass with
    4 n e / P values, the formula for exchanging tokens for heads; gathers are listed separately. The backward pass gathers
    again, and the gradients of gathered values count among the exchanges.
    """
    ranks, tokens = point["ranks"], point["num_tokens"]
    formula = 4 * tokens * point["width"] / ranks * 4 * point["num_blocks"]
    forward, backward = point["traffic_forward"], point["traffic_backward"]

    def bytes_of(traffic: Point, kind: str) -> int:
        return traffic.get(kind, {"bytes": 0})["bytes"]

    return {
        "ranks": ranks,
        "num_tokens": tokens,
        "tokens_most_over_least": max(point["tokens_of_ranks"]) / max(1, min(point["tokens_of_ranks"])),
        "activation_bytes": max(point["activation_bytes"]),
        "memory_times_ranks": max(point["activation_bytes"]) * ranks / base["activation_bytes"][0],
        "longest_over_one": tokens_within_limit / base["num_tokens"],
        "exchanged_forward": bytes_of(forward, "all_to_all_single"),
        "exchanged_over_formula": bytes_of(forward, "all_to_all_single") / formula,
        "gathered_forward": bytes_of(forward, "all_gather_into_tensor"),
        "gathered_backward": bytes_of(backward, "all_gather_into_tensor"),
        "exchanged_backward": bytes_of(backward, "all_to_all_single"),
        **{name: point[name] for name in PART_MEASURES},
        "step_seconds": point["step_seconds"],
        "cpu_seconds": sum(point["cpu_seconds"]),
        "cpu_over_one": sum(point["cpu_seconds"]) / point["cpu_alone"],
        "cpu_most_over_least": max(point["cpu_seconds"]) / min(point["cpu_seconds"]),
    }


def sequence_figure(rows: Sequence[Point]) -> Figure:
    """Draw memory per rank, longest sequence and CPU time against the number of ranks, with the ideal curves."""
    chart = Figure(figsize=(11, 3.4), layout="constrained")
    ranks = [row["ranks"] for row in rows]
    one = rows[0]["activation_bytes"]
    panels = (
        ("activations of a rank, MiB", [r["activation_bytes"] / 2**20 for r in rows], [one / 2**20 / p for p in ranks]),
        ("longest sequence over one process's", [r["longest_over_one"] for r in rows], ranks),
        ("CPU time over one process's", [r["cpu_over_one"] for r in rows], [1] * len(ranks)),
    )
    for axes, (title, values, ideal) in zip(chart.subplots(1, 3), panels, strict=True):
        axes.plot(ranks, ideal, "--", color="0.6", label="ideal")
        axes.plot(ranks, values, "o-", color=COLOURS[0], label="measured")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("ranks of a sequence group")
        axes.set_xticks(ranks)
        axes.set_ylim(bottom=0)
    axes.legend()
    return chart
