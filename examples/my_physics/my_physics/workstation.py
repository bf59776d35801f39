"""A workstation with four GPUs on PCIe: the numbers of its data sheet, and shares of them that were measured."""

from matey.planning.machine import Link, Machine

WORKSTATION = Machine(
    name="workstation",
    num_nodes=1,
    devices_per_node=4,
    memory=48e9,
    reserved_memory=1e9,
    memory_bandwidth=8e11,
    peak={"float32": 4e13, "bfloat16": 1.6e14},
    achieved={"float32": 0.6, "bfloat16": 0.5},
    kernel_seconds=5e-6,
    inside=Link(latency=1e-5, bandwidth=2.5e10),
    between=Link(latency=1e-5, bandwidth=2.5e10),
)
