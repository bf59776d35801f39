"""Imports every module of the package and prints what has changed but for the modules themselves."""

import atexit
import json
import os
import pkgutil
import signal
import sys
import threading
import warnings
from importlib import import_module

OTHERS = (
    "torch torch.utils.cpp_extension transformers peft h5py netCDF4 zarr xarray matplotlib.figure scipy tqdm".split()
)


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


def main():
    # What the packages of others do is theirs.
    for name in OTHERS:
        import_module(name)
    before, names = state(), []
    for module in pkgutil.walk_packages(import_module("matey").__path__, "matey."):
        import_module(module.name)
        names.append(module.name)
    after = state()
    changed = {
        what: [x for x in after[what] if x not in before[what]] for what in before if before[what] != after[what]
    }
    sys.stdout.write(f"effects {json.dumps([len(names), changed])}\n")


if __name__ == "__main__":
    main()
