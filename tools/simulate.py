"""Simulate an ensemble of trajectories of one PDE system and write it in the format of the published data.

    python tools/simulate.py --list
    python tools/simulate.py shallow_water --out data/swe --trajectories 200 --resolution 64

The solvers and the layout are in matey.simulate; without options, size and settings are those of the published set.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from matey.fields import nearest_name
from matey.simulate.pdebench_layout import SYSTEMS, Ensemble, read_configs, solve_ensemble, write_ensemble


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status, with what the user has to change on stderr."""
    try:
        options = parse(arguments)
        if options.list:
            for name, system in SYSTEMS.items():
                print(f"{name:20s} {system.summary}")
        else:
            simulate(options)
    except (ValueError, ArithmeticError) as error:
        print(f"simulate.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]  # HDF5 tells a story
        print(f"simulate.py: Cannot write to {options.out}: {reason}; choose another --out.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simulate.py: interrupted; nothing was written.", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told like all others: in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError instead of leaving."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}; see --help.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; raise ValueError if it is not one."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", metavar="SYSTEM", help=" or ".join(SYSTEMS))
    parser.add_argument("--list", action="store_true", help="list the systems and stop")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the file, which has its official name")
    sizes = {
        "--trajectories": (Ensemble.num_trajectories, "how many"),
        "--resolution": (Ensemble.resolution, "cells along each axis"),
        "--frames": (Ensemble.num_frames, "frames of each, the initial one included"),
        "--seed": (Ensemble.first_seed, "of the first trajectory; the next ones count up"),
    }
    for flag, (default, text) in sizes.items():
        parser.add_argument(flag, type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--overwrite", action="store_true", help="replace a file made with other settings")
    return parser.parse_args(arguments)


def simulate(options: argparse.Namespace) -> None:
    """Write the file that the options ask for, unless it is there.

    Raises:
        ValueError: the options make no sense, or something else lies where the file should go.
    """
    if options.system not in SYSTEMS:
        if options.system is None:
            raise ValueError(f"Name a system: {' or '.join(SYSTEMS)}.")
        raise ValueError(f"No system {options.system!r}.{nearest_name(options.system, SYSTEMS)} See --list.")
    if options.out is None:
        raise ValueError("Name the folder for the file: --out DIR.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out names a folder, but {options.out} is a file.")
    ensemble = Ensemble(
        SYSTEMS[options.system], options.trajectories, options.resolution, options.frames, first_seed=options.seed
    )
    path = options.out / ensemble.system.file_name
    if path.exists() and not options.overwrite:
        if not holds(path, ensemble):
            raise ValueError(f"{path} holds something else; choose another --out, or replace it with --overwrite.")
        print(f"{path} is there already, with these settings.")
        return

    options.out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.out).free
    if free < ensemble.num_bytes:
        raise ValueError(f"{path} needs {ensemble.num_bytes / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB free.")
    keep_freed_memory()
    num_workers = torch.get_num_threads()
    torch.set_num_threads(1)  # threads take whole batches instead
    solved = solve_ensemble(ensemble, num_workers)
    progress = tqdm(solved, desc=options.system, total=ensemble.num_trajectories, unit="trajectory", disable=None)
    write_ensemble(path, ensemble, progress)
    print(f"Wrote {path}: {options.trajectories} x {options.frames} frames, {path.stat().st_size / 1e6:.0f} MB.")


def holds(path: Path, ensemble: Ensemble) -> bool:
    """Say whether a file is what the ensemble would write."""
    try:
        return read_configs(path) == ensemble.configs()
    except OSError:  # not an HDF5 file
        return False


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 32 MB for reuse rather than hand them back to the kernel.

    Otherwise every temporary of the solvers costs page faults anew, which doubles the time. glibc raises its threshold
    to the largest mapped block that was freed (mallopt(3), M_MMAP_THRESHOLD), so freeing one block is enough.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


if __name__ == "__main__":
    # A batch system ends jobs with SIGTERM; a shell has what it starts with "&" ignore SIGINT.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
