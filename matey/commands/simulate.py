"""Simulates an ensemble and writes its files, for tools/simulate.py."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from tqdm import tqdm

from matey.process.start import keep_freed_memory
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import System, Trajectory, make
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
    there = next(folder for folder in (options.out, *options.out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < ensemble.num_bytes:
        size = f"{ensemble.num_trajectories} trajectories need {ensemble.num_bytes / 1e9:.1f} GB"
        raise ValueError(f"{size}, but the disk of {options.out} has {free / 1e9:.1f} GB free.")
    keep_freed_memory()  # otherwise each temporary of the solvers costs page faults, which doubles the time
    workers = options.workers or torch.get_num_threads()
    torch.set_num_threads(1)  # threads work on whole batches instead

    def show(trajectories: Iterator[Trajectory], total: int) -> Iterable[Trajectory]:
        return tqdm(trajectories, desc=options.system, total=total, unit="trajectory", disable=None)

    lock = FileLock(options.out / "data")
    for second in itertools.count():  # while another call makes data there, which may be the same
        try:
            lock.take()
            break
        except LockedError as refusal:
            if second == 0:
                print(f"Waiting: {refusal}", file=sys.stderr, flush=True)
            time.sleep(1)
    try:
        written = make(options.out, ensemble, workers, options.overwrite, show)
    finally:
        lock.release()
    if not written:
        print(f"{ensemble.num_trajectories} trajectories with these settings are in {options.out} already.")
    else:
        what = str(written[0]) if len(written) == 1 else f"{len(written)} files to {options.out}"
        print(f"Wrote {what}: {sum(path.stat().st_size for path in written) / 1e6:.0f} MB.")
    return 0
