"""Started by test_environment.py on ranks that have no GPU: prints which devices DeepSpeed's own code would ask for.

What would touch a device is recorded in its place; environment, ranks, process group and DeepSpeed are real.
"""

import argparse
import inspect
import sys

import deepspeed
import torch
from deepspeed.accelerator import real_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

from matey.parallel.environment import find_environment, start_processes, stop_processes

asked = []


class Recording(CPU_Accelerator):
    def device_name(self, device_index=None):
        return "cuda" if device_index is None else f"cuda:{device_index}"

    def device(self, device_index=None):
        asked.append(("device of the process group", device_index))
        return torch.device("cuda", device_index)

    def set_device(self, device_index):
        asked.append(("device of the engine", device_index))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int)
    parser.add_argument("--local_rank")
    environment = find_environment(num_devices=parser.parse_args().devices)
    real_accelerator.set_accelerator(Recording())
    torch.cuda.set_device = lambda device: asked.append(("device of torch", device.index))
    join = torch.distributed.init_process_group

    def join_with_gloo(backend, device_id=None, **options):
        assert backend == "nccl" and device_id == (environment.device if environment.world_size > 1 else None)
        join("gloo", **options)

    # In place, since DeepSpeed looks up which arguments there are.
    join_with_gloo.__signature__ = inspect.signature(join)
    torch.distributed.init_process_group = join_with_gloo
    start_processes(environment, timeout=60, threads=1)
    engine = object.__new__(deepspeed.DeepSpeedEngine)
    torch.nn.Module.__init__(engine)
    engine._configure_with_arguments(None, None)
    engine._do_args_sanity_check(None)
    engine._set_distributed_vars(None)
    sys.stdout.write(f"rank {environment.rank} asks for {sorted(set(asked))}\n")
    sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main()
