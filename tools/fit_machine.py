"""Fit a machine's links to collectives that were timed on it, and write a machine file for tools/plan.py.

    python tools/fit_machine.py --machine cpu --ranks 2 --out my_machine.yaml
    python tools/fit_machine.py --machine frontier --points points_1_node.jsonl points_4_nodes.jsonl --out my_frontier.yaml

The first times collectives on ranks of this machine. The second takes what rank 0 of a job printed, so that links between nodes
are fitted too:  srun -N 4 ... python -m matey.parallel.collective_speed > points_4_nodes.jsonl  (and the same with -N 1).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from matey.config import ConfigError
from matey.scaling.collectives import Fit, Point, fit, read_points
from matey.scaling.machine import load_machine


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", required=True, help="machine whose other values are taken: a name or a YAML file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ranks", type=int, help="number of ranks to time collectives on, on this machine")
    source.add_argument("--points", nargs="+", type=Path, help="files with the lines that collective_speed printed")
    parser.add_argument("--out", required=True, type=Path, help="machine file to write")
    args = parser.parse_args()
    try:
        machine = load_machine(args.machine)
        points = read_points(
            time_here(args.ranks) if args.points is None else "\n".join(map(Path.read_text, args.points))
        )
        found = fit(points)
        tree = found.on(machine).model_dump() | {"name": f"{machine.name}, links fitted to {len(points)} collectives"}
        args.out.write_text(yaml.safe_dump(tree, sort_keys=False))
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot open {error.filename} ({error.strerror}).", file=sys.stderr)
        return 2
    print(text(points, found))
    print(f"\nMachine: {args.out}")
    return 0


def time_here(ranks: int) -> str:
    """Return what `matey.parallel.collective_speed` prints on ranks of this machine."""
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


if __name__ == "__main__":
    sys.exit(main())
