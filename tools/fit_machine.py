"""Fit a machine's links to collectives that were timed on it, and write a machine file for tools/plan.py.

    python tools/fit_machine.py --machine cpu --ranks 2 --out my_machine.yaml
    python tools/fit_machine.py --machine frontier --points points_1_node.jsonl points_4_nodes.jsonl --out my_frontier.yaml

The first times collectives on ranks of this machine. The second takes what rank 0 of a job printed, so that links between nodes
are fitted too:  srun -N 4 ... python -m matey.parallel.collective_speed > points_4_nodes.jsonl  (and the same with -N 1).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matey.mistakes import ends_with_sentence
from matey.planning.machine import load_machine


@ends_with_sentence
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", required=True, help="machine whose other values are taken: a name or a YAML file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ranks", type=int, help="number of ranks to time collectives on, on this machine")
    source.add_argument("--points", nargs="+", type=Path, help="files with the lines that collective_speed printed")
    parser.add_argument("--out", required=True, type=Path, help="machine file to write")
    args = parser.parse_args()
    machine = load_machine(args.machine)
    from matey.commands.fit_machine import main as fit_machine

    return fit_machine(machine, args.ranks, args.points, args.out)


if __name__ == "__main__":
    sys.exit(main())
