"""Fits a machine's links to timed collectives, for tools/fit_machine.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from matey.planning.collectives import Fit, Point, fit, read_points
from matey.planning.machine import Machine


def main(machine: Machine, ranks: int, files: Sequence[Path] | None, out: Path) -> int:
    """Fit, and write and print what was found.

    Args:
        machine: the machine whose other values are taken.
        ranks: number of ranks here to time collectives on; not used where there are files.
        files: lines that were timed elsewhere, None if there are none.
        out: path of the machine file to write.

    Returns:
        0 if all went well, 2 for a mistake that the printed sentence explains.
    """
    try:
        points = read_points(time_here(ranks) if files is None else "\n".join(map(Path.read_text, files)))
        found = fit(points)
        tree = found.on(machine).model_dump() | {"name": f"{machine.name}, links fitted to {len(points)} collectives"}
        out.write_text(yaml.safe_dump(tree, sort_keys=False))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot open {error.filename} ({error.strerror}).", file=sys.stderr)
        return 2
    print(text(points, found))
    print(f"\nMachine: {out}")
    return 0


def time_here(ranks: int) -> str:
    """Time collectives on ranks of this machine and return the lines of `matey.parallel.collective_speed`."""
    if ranks < 2:
        raise ValueError(f"Collectives are timed on at least two ranks, got --ranks {ranks}.")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    result = subprocess.run([*command, "-m", "matey.parallel.collective_speed"], capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"Collectives on {ranks} ranks failed:\n{result.stderr[-2000:]}")
    return result.stdout


def text(points: list[Point], found: Fit) -> str:
    """Lay the points out beside the model."""
    head = f"{'collective':24}{'ranks':>7}{'nodes':>7}{'bytes':>12}{'measured':>14}{'modelled':>14}{'off':>8}"
    lines = [head, "-" * len(head)]
    for point, residual in zip(points, found.residuals, strict=True):
        lines.append(
            f"{point.kind:24}{point.group.num_ranks:7}{point.group.num_nodes:7}{point.num_bytes:12}"
            f"{point.seconds * 1e6:11.1f} us{point.seconds * (1 + residual) * 1e6:11.1f} us{residual:+8.0%}"
        )
    lines.append("")
    for name, link in (("inside a node", found.inside), ("between nodes", found.between)):
        if link:
            lines.append(f"{name}: latency {link.latency * 1e6:.1f} us, bandwidth {link.bandwidth / 1e9:.2f} GB/s")
    lines.append("factors: " + ", ".join(f"{kind} {factor:.2f}" for kind, factor in found.factors.items()))
    off = sorted(abs(residual) for residual in found.residuals)
    lines.append(f"off by {off[len(off) // 2]:.0%} in the median, {off[-1]:.0%} at the most")
    return "\n".join(lines)
