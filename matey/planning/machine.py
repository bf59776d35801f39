"""A machine for planning: rates and sizes of a device, a node and the network, from a YAML file with sources."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from matey.config import ConfigError, read_yaml
from matey.config.loading import sentences
from matey.config.section import Section
from matey.registry import Registry

FOLDER = files("matey.planning") / "machines"
MACHINES: Registry[Machine] = Registry("machine", "matey.machines", {}, type="matey.planning.machine:Machine")
"""Machines that packages add to the machines in `FOLDER`."""


class Link(Section):
    """A connection between devices: a message of n bytes takes ``latency + n / bandwidth``."""

    latency: float = Field(ge=0, description="seconds from one rank to another, alpha")
    bandwidth: float = Field(gt=0, description="bytes a second in one direction, 1 / beta")


class Machine(Section):
    """The rates and sizes of a machine; one rank computes on one device: a GPU, a GCD (half an MI250X), or a core."""

    name: str = Field(description="name of the machine")
    num_nodes: int = Field(ge=1, description="number of nodes")
    devices_per_node: int = Field(ge=1, description="number of devices of a node")
    shared_devices: bool = Field(
        False, description="whether ranks of a node share its devices and memory, as cores are shared"
    )
    memory: float = Field(gt=0, description="memory of a device in bytes")
    reserved_memory: float = Field(
        ge=0, description="bytes of it that a process holds before it makes a tensor, for Python and libraries"
    )
    node_memory: float | None = Field(
        None, gt=0, description="main memory of a node in bytes; without it there is no verdict on main memory"
    )
    memory_bandwidth: float = Field(gt=0, description="memory bandwidth of a device in bytes a second")
    peak: dict[str, float] = Field(description="operations a second of a device's matrix products, by precision")
    achieved: dict[str, float] = Field(description="share of the peak that large matrix products reach, by precision")
    kernel_seconds: float = Field(ge=0, description="seconds that starting an operation takes at least")
    inside: Link = Field(description="link between two devices of a node, for each device")
    between: Link = Field(description="link between nodes, all links of a node together")
    factors: dict[str, float] = Field({}, description="seconds of a collective over the model's, by kind, if measured")

    @model_validator(mode="after")
    def _has_both_precisions(self) -> Machine:
        if not {"float32", "bfloat16"} <= self.peak.keys() & self.achieved.keys():
            raise ValueError("peak and achieved must each give a number for float32 and for bfloat16")
        return self

    def nodes_of(self, num_ranks: int) -> int:
        """Return how many nodes a number of ranks fills, one rank per device; ranks that share devices all fit on one node."""
        return 1 if self.shared_devices and self.num_nodes == 1 else -(-num_ranks // self.devices_per_node)

    def on_threads(self, ranks: int, threads: int | None) -> Machine:
        """Return the machine for ranks that compute on ``threads`` cores each, or that share all cores of a node.

        A machine whose devices are not cores is returned unchanged.
        """
        if not self.shared_devices:
            return self
        cores = self.devices_per_node
        devices = min(cores, ranks * (threads or cores))
        # Also if cores stay idle, the ranks share all of the node's memory.
        return self.model_copy(update={"devices_per_node": devices, "memory": self.memory * cores / devices})

    def ranks_on_node(self, num_ranks: int) -> int:
        """Return the number of ranks of a full node."""
        return -(-num_ranks // self.nodes_of(num_ranks))

    def devices_of_rank(self, num_ranks: int) -> float:
        """Return how many devices one rank has: 1, or its share of a node's shared devices."""
        return self.devices_per_node / self.ranks_on_node(num_ranks) if self.shared_devices else 1.0

    def rate(self, precision: str) -> float:
        """Return the operations per second that large matrix products reach on a device."""
        return self.peak[precision] * self.achieved[precision]


def load_machine(name_or_path: str | Path) -> Machine:
    """Read a machine by its name (see `machine_names`) or from a user's file.

    Raises:
        ConfigError: there is no such machine or file, or the file does not describe one.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name in MACHINES:
            return MACHINES[name]
        if name not in machine_names():
            raise ConfigError(
                f"There is no machine {name!r}; take one of {', '.join(machine_names())}, or the path of a "
                "YAML file like those in matey/planning/machines/."
            )
        path = Path(str(FOLDER / f"{name}.yaml"))
    tree = read_yaml(path)
    try:
        return Machine.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {sentences(error, Machine)}") from None


def machine_names() -> list[str]:
    """Return the names of the machines that come with MATEY, and of those that packages add."""
    own = sorted(entry.name.removesuffix(".yaml") for entry in FOLDER.iterdir() if entry.name.endswith(".yaml"))
    return [*own, *MACHINES]
