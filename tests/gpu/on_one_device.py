"""Run by a launcher before a script: its ranks share the first GPU, over gloo, since NCCL refuses two ranks on one device."""

import runpy
import sys

import torch

from matey.parallel.environment import Environment, find_environment
from matey.train import run as start


class OnOneDevice(Environment):
    backend = "gloo"


def main(device: str, script: str) -> None:
    found = find_environment(num_devices=0)
    shared = OnOneDevice(**{**vars(found), "device": torch.device(device, *([0] if device == "cuda" else []))})
    start.find_environment = lambda: shared
    del sys.argv[:2]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:3])
