"""Run by a launcher: ranks on one device, over gloo, beside one process; rank 0 says as JSON how far they are apart."""

import json
import sys

import torch
import torch.distributed as dist
from deepspeed.accelerator import real_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

from matey.model.sequence_group import SequenceGroup
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.sequence import DistributedSequenceGroup
from matey.parallel.topology import Topology
from matey.train.loss import LossScale, training_loss
from tests.support.models import make_batch, make_model


def run(model, sequence_group, batch):
    """Return the loss and the gradients, summed over the ranks of the sequence group."""
    model.sequence_group = sequence_group
    model.zero_grad()
    loss, _ = training_loss(model([batch]), sequence_group, {batch.system: LossScale()})
    loss.backward()
    return [loss.detach(), *(sequence_group.reduce(parameter.grad).clone() for parameter in model.parameters())]


def main(device):
    # DeepSpeed would bind each rank to a device of its own: it is told of none, and gloo takes tensors of any.
    real_accelerator.set_accelerator(CPU_Accelerator())
    start_processes(find_environment(num_devices=0), timeout=120, threads=1)
    rank, size = dist.get_rank(), dist.get_world_size()
    worst = 0.0
    for scheme in ("vit", "avit"):
        model = make_model(((1, 1, 8, 8), (1, 1, 4, 4)), torch.float32, scheme=scheme).to(device)
        batch = make_batch(num_samples=2, grid=(1, 32, 24)).to(device)
        ours = run(model, DistributedSequenceGroup(Topology(rank, size, size, 3)), batch)
        expected = run(model, SequenceGroup(), batch)
        off = [float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(ours, expected, strict=True)]
        worst = max(worst, *off)
    if rank == 0:
        sys.stdout.write(f"found {json.dumps({'device': str(next(model.parameters()).device), 'off': worst})}\n")
        sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(sys.argv[1])
