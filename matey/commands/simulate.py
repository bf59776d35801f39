"""Simulates an ensemble and writes its files, for tools/simulate.py."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from matey.data import open_dataset
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well
from matey.process.start import keep_freed_memory
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import Ensemble, System, Trajectory, make
from matey.simulate.mhd_cavity import ARRAYS
from matey.train.folder import FileLock, LockedError


def main(options: argparse.Namespace, sizes: Mapping[str, int], settings: Mapping[str, float]) -> int:
    """Write the files of an ensemble of these sizes and settings, unless they exist; return 0.

    Raises:
        ValueError: the options are inconsistent, or something else exists in the place of a file.
    """
    system: System = SYSTEMS[options.system]
    if options.layout == "npy":
        system = replace(system, layout=ARRAYS)
    ensemble = system.ensemble(settings, **sizes, first_seed=options.seed)
    official = options.out
    if options.layout == "the_well":
        # Here an interrupted ensemble is kept and continued.
        official = options.out.absolute().with_name(f".{options.out.name}.official")
    there = next(folder for folder in (options.out, *options.out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < ensemble.num_bytes:
        size = f"{ensemble.num_trajectories} trajectories need {ensemble.num_bytes / 1e9:.1f} GB"
        raise ValueError(f"{size}, but the disk of {options.out} has {free / 1e9:.1f} GB free.")
    with alone_in(official):
        written = write(options, ensemble, official)
    size = f"{sum(path.stat().st_size for path in written) / 1e6:.0f} MB."
    if not written:
        print(f"{ensemble.num_trajectories} trajectories with these settings are in {options.out} already.")
    elif len(written) == 1:
        print(f"Wrote {written[0]}: {size}")
    else:
        print(f"Wrote {len(written)} files to {options.out}: {size}")
    return 0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of data; while another call makes data there, which may be the same, wait for it."""
    lock, is_told = FileLock(folder / "data"), False
    while True:
        try:
            lock.take()
            break
        except LockedError as refusal:
            if not is_told:
                print(f"Waiting: {refusal}", file=sys.stderr, flush=True)
            is_told = True
            time.sleep(1)
        except OSError:  # where nothing can be written, all may be there already
            break
    try:
        yield
    finally:
        lock.release()


def write(options: argparse.Namespace, ensemble: Ensemble, official: Path) -> list[Path]:
    """Solve what is missing, write it, and convert it if the options ask for another layout; return the new files."""
    if official != options.out:
        check_the_well(options.out, ensemble)
    keep_freed_memory()  # otherwise each temporary of the solvers costs page faults, which doubles the time
    workers = options.workers or torch.get_num_threads()
    torch.set_num_threads(1)  # threads work on whole batches instead

    def show(trajectories: Iterator[Trajectory], total: int) -> Iterable[Trajectory]:
        return tqdm(trajectories, desc=options.system, total=total, unit="trajectory", disable=None)

    written = make(official, ensemble, workers, options.overwrite, show)
    return to_the_well(official, options.out) if official != options.out else written


def check_the_well(out: Path, ensemble: Ensemble) -> None:
    """Raise ValueError, before anything is solved, if the folder is not empty or trajectories are too few for all parts."""
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already; choose another --out, or remove it.")
    if ensemble.num_trajectories < 3:
        raise ValueError(
            f"The Well's layout has parts train, valid and test: make 3 trajectories, not {ensemble.num_trajectories}."
        )


def to_the_well(official: Path, out: Path) -> list[Path]:
    """Convert official files to The Well's layout, the last tenths for validation and testing, and return the new files."""
    if out.exists():
        out.rmdir()  # write_the_well makes it again
    data = open_dataset(official)
    numbers, tenth = tuple(range(data.num_trajectories)), max(1, data.num_trajectories // 10)
    write_the_well(data, Split(numbers[: -2 * tenth], numbers[-2 * tenth : -tenth], numbers[-tenth:]), out)
    shutil.rmtree(official)
    return [path for path in out.rglob("*") if path.is_file()]
