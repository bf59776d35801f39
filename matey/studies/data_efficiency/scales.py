"""The systems and scales of the study of data efficiency; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

STARTS = ("pretrained", "random", "stencil", "ResNet", "U-Net")
"""Models of the study: fine-tuned from a pretrained model or from random weights, and peers on the same trajectories."""

PEERS = STARTS[2:]
SYSTEMS = {"thermals": "colliding_thermals", "mhd": "mhd_cavity"}


@dataclass(frozen=True)
class Scale:
    """The size of a study.

    Attributes:
        config: path of the run YAML of every point.
        sizes: numbers of training trajectories by system.
        modes: modes of fine-tuning, which select the trained parts.
        seeds: number of runs of each point.
        peer_seconds: cost of training a peer, in seconds of CPU or GPU.
        settings: overrides of the YAML.
        system_settings: overrides for single systems, when starting from the model that comes with MATEY.
        mode_settings: overrides for single modes.
        max_windows: largest number of windows to score each run on, per lead.
        simulates: whether the study simulates its data, enough for the largest of ``sizes``.
        resolution: number of cells along an axis of the simulated or expected data, by system.
        ranks: intended number of ranks of each run.
    """

    config: str
    sizes: dict[str, str]
    modes: str
    seeds: int
    peer_seconds: float
    settings: tuple[str, ...] = ()
    system_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    mode_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    max_windows: int = 1000
    simulates: bool = False
    resolution: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SYSTEMS, 64))
    ranks: int = 1


PAPER_SIZES = {"thermals": "1,6,12,24,48,96", "mhd": "1,6,12,24"}
LAPTOP = Scale(
    "launch/runs/finetune_thermals_micro.yaml",
    sizes=PAPER_SIZES,
    modes="prepost,all,lora",
    seeds=3,
    peer_seconds=75,  # about the cost of a fine-tuning
    settings=(
        "model.fields=null",
        "train.steps=200",
        "train.checkpoint_every=100",
        "train.unroll=0",
        "parallel.threads=1",  # like the peers, so that costs compare
    ),
    system_settings=(
        ("thermals", ("finetune.new_rows_of={velocity_z: copy:velocity_y}",)),
        ("mhd", ("finetune.new_rows_of={magnetic_x: copy:velocity_x, magnetic_y: copy:velocity_y}",)),
    ),
    max_windows=200,
    simulates=True,
)
SCALES = {
    "tiny": replace(
        LAPTOP,
        sizes=dict.fromkeys(SYSTEMS, "1,6"),
        modes="all",
        seeds=1,
        peer_seconds=3,
        settings=(*LAPTOP.settings, "train.steps=40"),
        max_windows=20,
    ),
    "laptop": LAPTOP,
    "paper": Scale(
        "launch/runs/finetune_{system}.yaml",
        sizes=PAPER_SIZES,
        modes="prepost,all,lora",
        seeds=3,
        peer_seconds=3600,
        mode_settings=(("all", ("train.learning_rate=5.0e-5", "train.weight_decay=0")),),
        resolution={"thermals": 256, "mhd": 128},
        ranks=64,
    ),
}
