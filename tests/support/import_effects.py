"""Imports every module of the package, those that train first, and prints what has changed but for the modules themselves.

A line ``modules`` names all that a program that trains has imported before its engine is built.
"""

import atexit
import json
import os
import pkgutil
import signal
import sys
import threading
import warnings
from importlib import import_module

OF_TRAINING = "torch torch.utils.cpp_extension transformers peft h5py scipy tqdm".split()
OTHERS = "netCDF4 zarr xarray matplotlib.figure".split()


def state():
    return {
        "variables": [f"{name}={value}" for name, value in os.environ.items()],
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "held signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "work at the end": [*range(atexit._ncallbacks())],
        "threads": [thread.name for thread in threading.enumerate()],
        "warnings": [*map(str, warnings.filters)],
        "path": [*sys.path],
        "streams": [id(sys.stdout), id(sys.stderr)],
    }


def changed_by(names, others):
    """What modules of ours change when they are imported; what the packages of others do is theirs."""
    for name in others:
        import_module(name)
    before = state()
    for name in names:
        import_module(name)
    after = state()
    return {what: [x for x in after[what] if x not in before[what]] for what in before if before[what] != after[what]}


def main():
    changed = changed_by(["matey.model.matey", "matey.data", "matey.evaluate.rollout", "matey.train.run"], OF_TRAINING)
    for name in ("MateyModel", "open_dataset", "rollout"):
        getattr(import_module("matey"), name)
    sys.stdout.write(f"modules {json.dumps([*sys.modules])}\n")
    names = [module.name for module in pkgutil.walk_packages(import_module("matey").__path__, "matey.")]
    changed |= changed_by(names, OTHERS)
    sys.stdout.write(f"effects {json.dumps([len(names), changed])}\n")


if __name__ == "__main__":
    main()
