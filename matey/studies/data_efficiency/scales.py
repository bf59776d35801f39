"""Systems and sizes of the study of data efficiency; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace

SYSTEMS = {"thermals": "colliding_thermals", "mhd": "mhd_cavity"}


@dataclass(frozen=True)
class Scale:
    """The size of a study.

    Attributes:
        config: path of the run YAML of every point.
        sizes: numbers of training trajectories by system.
        modes: parts that are trained.
        seeds: number of runs of each point.
        settings: overrides of the YAML.
        system_settings: overrides of single systems, from the model in the box.
        mode_settings: overrides of single modes.
        rollout: forecast horizon in snapshots.
        max_windows: largest number of windows to score each run on, per lead.
        simulates: whether the study makes its own data, enough for the largest of ``sizes``.
    """

    config: str
    sizes: dict[str, str]
    modes: str
    seeds: int
    settings: tuple[str, ...] = ()
    system_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    mode_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rollout: int = 10
    max_windows: int = 1000
    simulates: bool = False


PAPER_SIZES = {"thermals": "1,6,12,24,48,96", "mhd": "1,6,12,24"}
LAPTOP = Scale(
    "launch/runs/finetune_thermals_micro.yaml",
    sizes=PAPER_SIZES,
    modes="prepost,all,lora",
    seeds=3,
    settings=("model.fields=null", "train.steps=200", "train.checkpoint_every=100", "train.unroll=0"),
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
        settings=(*LAPTOP.settings, "train.steps=40"),
        max_windows=20,
    ),
    "laptop": LAPTOP,
    "paper": Scale(
        "launch/runs/finetune_{system}.yaml",
        sizes=PAPER_SIZES,
        modes="prepost,all",
        seeds=3,
        mode_settings=(("all", ("train.learning_rate=5.0e-5", "train.weight_decay=0")),),
    ),
}
