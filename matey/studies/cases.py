"""What each study trains: models, data and settings at up to three scales; needs no PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from matey.config.schema import CRITERIA
from matey.mistakes import Mistake

THERMALS = "colliding_thermals"
SYSTEMS = {"thermals": THERMALS, "mhd": "mhd_cavity"}
"""Systems of `data_efficiency`."""

BASE, PAPER_THERMALS = "launch/runs/study_micro.yaml", "launch/runs/paper_adaptive_thermals.yaml"
IN_TIME = "data.history=4"
"""History for schemes that attend along time first, with patches of one frame: each place then has four tokens in time."""

MUON = ("train.optimizer=muon", "train.muon.learning_rate=1.0e-2", "train.learning_rate=4.0e-3")
"""The optimizer of networks with tokens alone: it learns faster, and these rates serve `micro` and Ti."""

BUDGETS, PAPER_BUDGET = (23, 32, 68), 4096
"""Numbers of tokens at which `adaptivity` compares criteria; uniform patches of 16 give 32, and 4096 at the scale `paper`."""

SMALL_SPLIT = "data.split=[0.7, 0.1, 0.2]"
"""Shares of the parts for few trajectories: more of them are held out."""


class StudyError(Mistake):
    """A study that cannot start or continue: one sentence that says what to do."""


@dataclass(frozen=True)
class Simulated:
    """A data set that a study simulates.

    Attributes:
        system: name of the system.
        resolution: number of cells along an axis.
        trajectories: number of trajectories.
        frames: number of frames of each trajectory.
    """

    system: str
    resolution: int
    trajectories: int
    frames: int

    @property
    def name(self) -> str:
        """The name of the data set's folder."""
        return f"{self.system}-{self.resolution}-{self.trajectories}x{self.frames}"

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of cells along ``z, y, x``."""
        return 1, self.resolution // (2 if self.system == THERMALS else 1), self.resolution


@dataclass(frozen=True)
class Case:
    """A model of a study that pretrains.

    Attributes:
        series: name of the plot's line with this case.
        label: name of the case within its line.
        settings: overrides of the study's YAML.
    """

    series: str
    label: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the case's folder."""
        return "-".join(f"{self.series} {self.label}".replace(",", " ").replace("/", " ").split())


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a study.

    Attributes:
        config: path of the run YAML of every training.
        settings: overrides of the YAML.
        cases: the models, for a study that pretrains.
        data: the data sets to simulate; if empty, those of the YAML, which must exist.
        seeds: number of trainings of each model.
        rollout: forecast horizon in snapshots.
        max_windows: largest number of windows to score each training on, per system and lead.
        grids: cells ``z, y, x`` of the YAML's data sets, for a plan while these do not exist.
        ranks: number of ranks of each training.
    """

    config: str
    settings: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    data: tuple[Simulated, ...] = ()
    seeds: int = 3
    rollout: int = 10
    max_windows: int = 200
    grids: tuple[tuple[int, int, int], ...] = ()
    ranks: int = 1


@dataclass(frozen=True, kw_only=True)
class PeersScale(Scale):
    """The size of a comparison with other models.

    Attributes:
        seconds: costs of training on a system, in seconds.
        paths: the data that must exist if none is simulated, one set for each system.
    """

    seconds: tuple[int, ...]
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuneScale(Scale):
    """The size of a study of data efficiency.

    Attributes:
        sizes: numbers of training trajectories.
        modes: modes of fine-tuning, which select the trained parts.
        peer_seconds: cost of training a peer, in seconds of CPU or GPU.
        new_rows: override for the model that comes with MATEY, which lacks fields of the system.
        mode_settings: overrides for single modes.
    """

    sizes: tuple[int, ...]
    modes: tuple[str, ...]
    peer_seconds: float
    new_rows: str = ""
    mode_settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pretrainings:
    """A study of one question that pretrains many models.

    Attributes:
        title: the question in a few words.
        scales: the study at each scale.
        axes: the costs on the axes of the plot, of `matey.studies.trainings.COLUMNS`.
    """

    title: str
    scales: Mapping[str, Scale]
    axes: tuple[str, ...] = ("tokens", "operations", "step_seconds")


def uniform(size: int, frames: int = 2) -> tuple[str, ...]:
    """Return the settings of uniform patches of ``size x size`` cells."""
    return ("tokens.set=uniform", f"tokens.patches=[[{frames},1,{size},{size}]]")


def adaptive(
    token_set: str, sizes: Sequence[int], refine: float, rule: str = "threshold", frames: int = 2
) -> tuple[str, ...]:
    """Return the settings of patches of several sizes, coarse to fine."""
    patches = ",".join(f"[{frames},1,{size},{size}]" for size in sizes)
    return (f"tokens.set={token_set}", f"tokens.patches=[{patches}]", f"tokens.rule={rule}", f"tokens.refine={refine}")


def adaptivity_cases(
    schemes: Iterable[str],
    sizes: Sequence[int],
    levels: Sequence[Sequence[int]] = (),
    amounts: Sequence[float] = (),
    sets: Sequence[str] = ("mix",),
    frames: int = 2,
    settings: Sequence[str] = (),
) -> tuple[Case, ...]:
    """Return cases of uniform grids and adaptive tokens for each scheme.

    Args:
        schemes: attention schemes.
        sizes: sizes of uniform patches.
        levels: sizes of adaptive patches, coarse to fine.
        amounts: thresholds of the refinement.
        sets: token sets of the adaptive patches.
        frames: number of frames of a patch.
        settings: further settings of every case.
    """
    cases = []
    for scheme in schemes:
        shared = (f"model.scheme={scheme}", *settings)
        cases += [Case(f"{scheme} uniform", str(size), (*shared, *uniform(size, frames))) for size in sizes]
        for of_levels, token_set, amount in itertools.product(levels, sets, amounts):
            series = f"{scheme} {token_set} {' to '.join(map(str, of_levels))}"
            own = adaptive(token_set, of_levels, amount, frames=frames)
            cases.append(Case(series, f"{amount:g}", (*shared, *own)))
    return tuple(cases)


def criterion_cases(
    sizes: Sequence[int], budgets: Sequence[int], criteria: Iterable[str], frames: int = 2
) -> tuple[Case, ...]:
    """Return cases with equal numbers of adaptive tokens, whose patches are split by different criteria.

    Args:
        sizes: sizes of the patches, coarse to fine.
        budgets: numbers of tokens.
        criteria: criteria of the refinement.
        frames: number of frames of a patch.
    """
    return tuple(
        Case(
            f"vit mix by {criterion}",
            str(budget),
            ("model.scheme=vit", *adaptive("mix", sizes, budget, "budget", frames), f"tokens.criterion={criterion}"),
        )
        for budget, criterion in itertools.product(budgets, criteria)
    )


def scheme_cases(sizes: Sequence[str]) -> tuple[Case, ...]:
    """Return cases of every attention scheme at every size."""
    return tuple(
        Case(scheme, size, (f"model.scheme={scheme}", f"model.size={size}"))
        for scheme, size in itertools.product(("vit", "svit", "avit"), sizes)
    )


def _five_systems(cells: int, trajectories: int, frames: int) -> tuple[Simulated, ...]:
    """Return the five systems of PDEBench on square grids; compressible flow in 21 frames, whose cost is highest."""
    names = ("shallow_water", "diffusion_reaction", "incompressible", "compressible_rand", "compressible_turb")
    return tuple(
        Simulated(name, cells, trajectories, 21 if name.startswith("compressible") else frames) for name in names
    )


def _thermals(cells: int, trajectories: int, frames: int) -> tuple[Simulated, ...]:
    return (Simulated(THERMALS, cells, trajectories, frames),)


_tiny = partial(Scale, config=BASE, seeds=1, rollout=4, max_windows=16)  # minutes, to see that a study works


def _adaptivity() -> Pretrainings:
    mixed, both = (32, 16, 8), ("mix", "mul")
    laptop = adaptivity_cases(("vit",), (32, 16, 8, 4), ((32, 8), mixed), (0.02, 0.1, 0.2, 0.4, 0.8), both)
    laptop += adaptivity_cases(("svit", "avit"), mixed, (mixed,), (0.1, 0.4), both, 1, (IN_TIME,))
    laptop += criterion_cases(mixed, BUDGETS, CRITERIA.own)
    paper = adaptivity_cases(("vit", "svit", "avit"), mixed, ((32, 8),), (0.2, 0.4, 0.6), frames=1)
    paper += adaptivity_cases(("vit",), (), ((32, 8), mixed), (0.02, 0.1, 0.2, 0.4, 0.6, 0.8), both, frames=1)
    paper += criterion_cases(mixed, (PAPER_BUDGET,), CRITERIA.own, frames=1)
    again = ("parallel.checkpoint_blocks=every_other",)  # or it does not fit on a die of Frontier
    paper = tuple(
        replace(case, settings=(*case.settings, *again)) if case.name == "avit-uniform-8" else case
        for case in dict.fromkeys(paper)  # the paper's thresholds of `vit` are in both
    )
    tiny = adaptivity_cases(("vit",), (16, 8), ((16, 8),), (0.2,))
    scales = {
        "tiny": _tiny(cases=tiny, data=_thermals(64, 10, 31), settings=("train.steps=40",)),
        "laptop": Scale(
            config=BASE,
            cases=laptop,
            data=_thermals(128, 60, 51),
            settings=("train.steps=400", *MUON),
            max_windows=60,
        ),
        "paper": Scale(config=PAPER_THERMALS, cases=paper, max_windows=1000, grids=((1, 256, 256),), ranks=32),
    }
    return Pretrainings("Adaptive tokens against uniform ones", scales)


def _fine_grid() -> Pretrainings:
    """Return the test of the paper's claim: network and grid so large that tokens cost most of a step, patches of one frame.

    Uniform patches of 16 x 16 cells give 256 tokens, those of 8 x 8 give 1,024.
    """
    levels, one = (32, 16, 8), partial(criterion_cases, frames=1)
    laptop = adaptivity_cases(("vit",), levels, frames=1)
    laptop += one(levels, (100, 130, 256), ("variance",)) + one(levels, (130,), ("second_difference", "random"))
    tiny = adaptivity_cases(("vit",), (16, 8), frames=1) + one((16, 8), (34,), ("variance", "random"))
    rates = ("train.learning_rate=1.0e-3", "train.optimizer=muon", "train.muon.learning_rate=1.0e-2")
    scales = {
        "tiny": _tiny(cases=tiny, data=_thermals(64, 10, 31), settings=("train.steps=40",)),
        "laptop": Scale(
            config=BASE,
            cases=laptop,
            data=_thermals(256, 24, 31),
            settings=("model.size=Ti", "train.steps=300", *rates, "train.checkpoint_every=50", SMALL_SPLIT),
            max_windows=40,
        ),
    }
    return Pretrainings("Adaptive tokens against uniform ones on a fine grid", scales, ("tokens", "seconds", "memory"))


def _schemes() -> Pretrainings:
    fine = (IN_TIME, *uniform(8, frames=1))
    scales = {
        "tiny": _tiny(
            cases=scheme_cases(("micro",)), data=_five_systems(32, 8, 13)[:2], settings=("train.steps=40", *fine)
        ),
        "laptop": Scale(
            config=BASE,
            cases=scheme_cases(("micro", "mini", "Ti")),
            data=_five_systems(64, 60, 51),
            settings=("train.steps=400", "train.micro_batch=4", "train.checkpoint_every=100", *MUON, *fine),
            max_windows=14,  # of each of five systems: with 40, scoring would take as long as the training
        ),
        "paper": Scale(
            config="launch/runs/paper_pretrain_vit_b.yaml",
            cases=scheme_cases(("Ti", "S", "B")),
            max_windows=1000,
            grids=(*[(1, 128, 128)] * 3, (1, 512, 512)),
            ranks=92 * 8,
        ),
    }
    title = "Attention schemes against parameters, time and memory"
    return Pretrainings(title, scales, ("parameters", "step_seconds", "memory"))


PRETRAININGS = {
    "adaptivity": _adaptivity(),
    "fine_grid": _fine_grid(),
    "schemes": _schemes(),
}
"""The studies that pretrain many models, by their names in ``tools/reproduce.py``."""

CELLS, MATEY, JOINT = "cells", "MATEY", "joint"
COMPARED = ("stencil", "ResNet", "small U", "U-Net", "FNO", CELLS, MATEY, JOINT)
"""Models of `peers`: the peers, MATEY's network on the cells without tokens, MATEY on each system, and on all together."""

DEMO, _TWO = "launch/runs/demo.yaml", ("shallow_water", "diffusion_reaction")
PEERS_SCALES = {
    "tiny": PeersScale(
        config=DEMO, seconds=(2,), seeds=1, max_windows=16, data=tuple(Simulated(name, 32, 10, 13) for name in _TWO)
    ),
    "laptop": PeersScale(config=DEMO, seconds=(30, 110), data=tuple(Simulated(name, 64, 200, 101) for name in _TWO)),
    "paper": PeersScale(
        config=DEMO,
        seconds=(3600,),
        max_windows=1000,
        paths=("data/pdebench/2D_rdb_NA_NA.h5", "data/pdebench/2D_diff-react_NA_NA.h5"),
    ),
}
"""``laptop`` has the demo's data and costs like those of `make demo`; ``paper`` the official files of 128 x 128 cells."""

STARTS = ("pretrained", "random", "stencil", "ResNet", "U-Net")
"""Models of `data_efficiency`: fine-tuned from a pretrained model or from random weights, and peers on the same data."""

STARTED_PEERS = STARTS[2:]
_LAPTOP = partial(
    FinetuneScale,
    config="launch/runs/finetune_thermals_micro.yaml",
    modes=("prepost", "all", "lora"),
    peer_seconds=75,  # about the cost of a fine-tuning
    settings=(
        "model.fields=null",
        "train.steps=200",
        "train.checkpoint_every=100",
        "train.unroll=0",
        "parallel.threads=1",  # like the peers, so that costs compare
    ),
)
_PAPER = partial(
    FinetuneScale,
    modes=("prepost", "all", "lora"),
    peer_seconds=3600,
    mode_settings={"all": ("train.learning_rate=5.0e-5", "train.weight_decay=0")},
    max_windows=1000,
    ranks=64,
)
_SIZES = {"thermals": (1, 6, 12, 24, 48, 96), "mhd": (1, 6, 12, 24)}
_DATA = {"thermals": Simulated(THERMALS, 64, 120, 51), "mhd": Simulated(SYSTEMS["mhd"], 64, 30, 51)}
_NEW_ROWS = {
    "thermals": "finetune.new_rows_of={velocity_z: copy:velocity_y}",
    "mhd": "finetune.new_rows_of={magnetic_x: copy:velocity_x, magnetic_y: copy:velocity_y}",
}


def _finetune_scales(system: str) -> dict[str, FinetuneScale]:
    laptop = _LAPTOP(sizes=_SIZES[system], new_rows=_NEW_ROWS[system], data=(_DATA[system],))
    few = replace(_DATA[system], trajectories=8)
    cells = {"thermals": 256, "mhd": 128}[system]
    return {
        "tiny": replace(
            laptop,
            sizes=(1, 6),
            modes=("all",),
            seeds=1,
            peer_seconds=3,
            settings=(*laptop.settings, "train.steps=40"),
            data=(few,),
            max_windows=20,
        ),
        "laptop": laptop,
        "paper": _PAPER(config=f"launch/runs/finetune_{system}.yaml", sizes=_SIZES[system], grids=((1, cells, cells),)),
    }


FINETUNE_SCALES = {system: _finetune_scales(system) for system in SYSTEMS}
"""The scales of `data_efficiency`, by system."""


def check_overrides(settings: Iterable[str], own: Mapping[str, str]) -> None:
    """Check overrides, ``KEY=VALUE`` each, of a key, of a whole section, or of a part of a key.

    Args:
        settings: the overrides.
        own: the sentence to say by each key that the study states itself.

    Raises:
        StudyError: an override names such a key.
    """
    for key in (setting.partition("=")[0].strip() for setting in settings):
        for mine, reason in own.items():
            if f"{mine}.".startswith(f"{key}.") or f"{key}.".startswith(f"{mine}."):
                raise StudyError(f"--set {key}: {reason}")


def stated_by(cases: Iterable[Case]) -> dict[str, str]:
    """Return, for `check_overrides`, what models of a study state for themselves.

    Their steps and their share of a machine may be overridden, to try a study.
    """
    stated: dict[str, str] = {}
    for case in cases:
        keys = [setting.partition("=")[0] for setting in case.settings]
        said = f"{case.name} would not be what the name says; leave it out, or choose other --models."
        stated |= {key: said for key in keys if key.startswith(("model.", "tokens.", "data.")) and key not in stated}
    return stated
