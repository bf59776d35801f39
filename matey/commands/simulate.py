"""Simulates an ensemble and writes its files, for tools/simulate.py."""

from __future__ import annotations

import argparse
import itertools
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
    if not written:
        print(f"{ensemble.num_trajectories} trajectories with these settings are in {options.out} already.")
    else:
        what = str(written[0]) if len(written) == 1 else f"{len(written)} files to {options.out}"
        print(f"Wrote {what}: {sum(path.stat().st_size for path in written) / 1e6:.0f} MB.")
    return 0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of data; while another call makes data there, which may be the same, wait for it."""
    lock = FileLock(folder / "data")
    for second in itertools.count():
        try:
            lock.take()
            break
        except LockedError as refusal:
            if second == 0:
                print(f"Waiting: {refusal}", file=sys.stderr, flush=True)
            time.sleep(1)
    try:
        yield
    finally:
        lock.release()


def write(options: argparse.Namespace, ensemble: Ensemble, official: Path) -> list[Path]:
    """Solve what is missing, write it, and convert it if the options ask for another layout; return the new files."""
    out = options.out
    if official != out and out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already; choose another --out, or remove it.")
    if official != out and ensemble.num_trajectories < 3:
        raise ValueError(
            f"The Well's layout has parts train, valid and test: make 3 trajectories, not {ensemble.num_trajectories}."
        )
    keep_freed_memory()  # otherwise each temporary of the solvers costs page faults, which doubles the time
    workers = options.workers or torch.get_num_threads()
    torch.set_num_threads(1)  # threads work on whole batches instead

    def show(trajectories: Iterator[Trajectory], total: int) -> Iterable[Trajectory]:
        return tqdm(trajectories, desc=options.system, total=total, unit="trajectory", disable=None)

    written = make(official, ensemble, workers, options.overwrite, show)
    if official == out:
        return written
    # The last tenths are for validation and testing.
    if out.exists():
        out.rmdir()  # write_the_well makes it again
    data = open_dataset(official)
    numbers, tenth = tuple(range(data.num_trajectories)), max(1, data.num_trajectories // 10)
    write_the_well(data, Split(numbers[: -2 * tenth], numbers[-2 * tenth : -tenth], numbers[-tenth:]), out)
    shutil.rmtree(official)
    return [path for path in out.rglob("*") if path.is_file()]
