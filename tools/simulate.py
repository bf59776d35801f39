"""Simulate an ensemble of trajectories of one PDE system and write it in the format of the published data.

    python tools/simulate.py --list
    python tools/simulate.py shallow_water --out data/swe --trajectories 200 --resolution 64
    python tools/simulate.py compressible_rand --out data/gas --trajectories 20 --mach 1.0

The solvers and the layouts are in matey.simulate; without options, size and settings are those of the published set. A
run that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags
from matey.mistakes import Mistake, nearest_name, writing
from matey.process.entry_point import INTERRUPTED, entry_point
from matey.process.signals import interrupt_at_signals
from matey.simulate.catalogue import CATALOGUE, LAYOUTS, SYSTEMS, check_sizes, settings

MOST_WORKERS = 1024


@entry_point
def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains, 130 if interrupted."""
    interrupt_at_signals()
    try:
        run(parse())
    except KeyboardInterrupt:
        print("Interrupted; the same command continues from here.", file=sys.stderr, flush=True)
        # Files are closed; an ordinary exit would wait for the solvers' threads, for minutes at 512 x 512.
        os._exit(INTERRUPTED)
    return 0


def run(options: argparse.Namespace) -> None:
    """Simulate as the command line says.

    Raises:
        Mistake: options contradict each other or the system, or the files cannot be written.
    """
    if options.list:
        for name in SYSTEMS:
            print(f"{name:20s} {(CATALOGUE.get(name) or SYSTEMS[name]).summary}")
        return
    try:
        check(options)
        from matey.commands.simulate import main as simulate

        with writing(options.out):
            simulate(options)
    except (ValueError, ArithmeticError) as error:
        raise Mistake(str(error)) from None


class Parser(argparse.ArgumentParser):
    """A parser that reports mistakes like all others: in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise Mistake instead of exiting."""
        raise Mistake(f"{message[:1].upper()}{message[1:]}; see --help.")


def parse() -> argparse.Namespace:
    """Read the command line; raise Mistake if it is wrong."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = f"{' or '.join(CATALOGUE)}, or a part of one that is in no other"
    parser.add_argument("system", nargs="?", metavar="SYSTEM", help=names)
    parser.add_argument("--list", action="store_true", help="list the systems and stop")
    parser.add_argument(
        "--out", type=flags.path, metavar="DIR", help="folder for the files, which have their official names"
    )
    sizes = {
        "--trajectories": "number of trajectories",
        "--resolution": "cells along the longest axis",
        "--frames": "frames of each, the initial one included",
        **{f"--{name}": f"setting of {' and '.join(systems)}" for name, systems in settings().items()},
    }
    for flag, text in sizes.items():
        number = float if flag[2:] in settings() else int
        parser.add_argument(flag, type=number, help=f"{text} (default: as published)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first trajectory; the next ones count up")
    layouts = (
        "official: of the published files; the_well: data/{train,valid,test}/*.hdf5 and stats.yaml; npy: of mhd_cavity"
    )
    parser.add_argument(
        "--layout",
        choices=("official", "the_well", *LAYOUTS),
        default="official",
        help=f"{layouts} (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, help="threads (default: as many as PyTorch takes)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file made with other settings")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Replace the system's name by the full one; raise ValueError if options contradict each other or the system."""
    options.system = full_name(options.system)
    if options.out is None:
        raise ValueError("Name the folder for the file: --out DIR.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out names a folder, but {options.out} is a file.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"The number of workers must be at least 1, got {options.workers}.")
    if options.workers is not None and options.workers > MOST_WORKERS:
        raise ValueError(f"The number of workers must be at most {MOST_WORKERS}, got {options.workers}.")
    for name, systems in settings().items():
        if getattr(options, name) is not None and options.system not in systems:
            raise ValueError(f"{options.system} has no --{name}, only {' and '.join(systems)} have.")
    published = CATALOGUE.get(options.system) or SYSTEMS[options.system]
    asked = {"num_trajectories": options.trajectories, "resolution": options.resolution, "num_frames": options.frames}
    sizes = {name: getattr(published, name) if size is None else size for name, size in asked.items()}
    given = {name: getattr(options, name, None) for name in published.settings}  # settings of a package have no flags
    chosen = {name: setting for name, setting in given.items() if setting is not None}
    check_sizes(**sizes, first_seed=options.seed, settings=chosen)
    layouts = LAYOUTS.get(options.layout)
    if layouts is not None and options.system not in layouts:
        raise ValueError(f"{options.system} has no --layout {options.layout}, only {' and '.join(layouts)} has.")


def full_name(system: str | None) -> str:
    """Return the full name of a system from it or a unique part of it; raise ValueError if no system fits."""
    if system is None:
        raise ValueError(f"Name a system: {' or '.join(SYSTEMS)}.")
    if system in CATALOGUE:
        return system
    meant = [name for name in SYSTEMS if system in name]
    if system in meant or len(meant) == 1:
        return system if system in meant else meant[0]
    raise ValueError(f"No system {system!r}.{nearest_name(system, SYSTEMS)} See --list.")


if __name__ == "__main__":
    sys.exit(main())
