"""What each study trains: cases, data and settings at up to four scales; needs no PyTorch."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from matey.config.choices import CRITERIA
from matey.mistakes import Mistake

THERMALS = "colliding_thermals"
SYSTEMS = {"thermals": THERMALS, "mhd": "mhd_cavity"}
"""Systems of `data_efficiency`."""

PAPER_THERMALS = "launch/runs/paper_adaptive_thermals.yaml"
BASE = "launch/runs/study_micro.yaml"
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
        return f"{self.system}-{self.resolution}"

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
        data: the training data sets; if empty, all that the study simulates, or those of the YAML.
    """

    series: str
    label: str
    settings: tuple[str, ...] = ()
    data: tuple[Simulated, ...] = ()

    @property
    def name(self) -> str:
        """The name of the case's folder."""
        return "-".join(f"{self.series} {self.label}".replace(",", " ").replace("/", " ").split())


@dataclass(frozen=True)
class Table:
    """A study that pretrains, at one scale.

    Attributes:
        config: path of the run YAML of every point.
        cases: the models.
        references: names of the cases that all others are compared with.
        data: the data sets to simulate; if empty, those of the YAML, which must exist.
        settings: overrides of the YAML for every point.
        seeds: number of trainings of each model.
        rollout: forecast horizon in snapshots.
        max_windows: largest number of windows to score each training on, per system and lead.
        controls: names of the cases that only those of the same label are compared with: those of as many tokens, or cells.
        grids: cells ``z, y, x`` of the YAML's data sets, for a plan while these do not exist.
        ranks: intended number of ranks of each training.
        launcher: command before ``launch/pretrain.py`` that starts the ranks; if empty, this Python or the user's launcher.
    """

    config: str
    cases: tuple[Case, ...]
    references: tuple[str, ...] = ()
    data: tuple[Simulated, ...] = ()
    settings: tuple[str, ...] = ()
    seeds: int = 3
    rollout: int = 10
    max_windows: int = 200
    controls: tuple[str, ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    ranks: int = 1
    launcher: str = ""

    def data_of(self, case: Case) -> tuple[Simulated, ...]:
        """Return the simulated training data sets of a case."""
        return case.data or self.data


@dataclass(frozen=True)
class Pretrainings:
    """A study of one question that pretrains many models.

    Attributes:
        title: the question in a few words.
        tables: the study at each scale.
        costs: the costs on the horizontal axes of the plot, of `matey.studies.pretraining.COSTS`.
        of_one_scheme: whether a reference is compared with cases of its own attention scheme only.
        grows: whether the labels of a line of the plot are numbers of cells, with which costs grow.
    """

    title: str
    tables: Mapping[str, Table]
    costs: tuple[str, ...] = ("tokens", "forward_operations", "step_seconds", "forecast_seconds")
    of_one_scheme: bool = False
    grows: bool = False


@dataclass(frozen=True)
class PeersScale:
    """The size of a comparison with other models.

    Attributes:
        seconds: costs of training on a system, in seconds.
        seeds: number of runs of each point.
        max_windows: largest number of windows to score each model on, per system and lead.
        device: the device to train on, ``cpu`` or ``cuda``.
        data: the data sets to simulate.
        paths: paths by system of the data that must exist, if none is simulated.
    """

    seconds: str
    seeds: int
    max_windows: int
    device: str = "cpu"
    data: tuple[Simulated, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FinetuneScale:
    """The size of a study of data efficiency.

    Attributes:
        config: path of the run YAML of every point.
        sizes: numbers of training trajectories by system.
        modes: modes of fine-tuning, which select the trained parts.
        seeds: number of runs of each point.
        peer_seconds: cost of training a peer, in seconds of CPU or GPU.
        settings: overrides of the YAML.
        new_rows: overrides for each system, when starting from the model that comes with MATEY.
        mode_settings: overrides for single modes.
        max_windows: largest number of windows to score each run on, per lead.
        simulates: whether the study simulates its data, enough for the largest of ``sizes``.
        resolution: number of cells along an axis of the simulated or expected data, by system.
        ranks: intended number of ranks of each run.
    """

    config: str
    sizes: Mapping[str, str]
    modes: str
    seeds: int
    peer_seconds: float
    settings: tuple[str, ...] = ()
    new_rows: Mapping[str, str] = field(default_factory=dict)
    mode_settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_windows: int = 1000
    simulates: bool = False
    resolution: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SYSTEMS, 64))
    ranks: int = 1


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
    sizes: Sequence[int], budgets: Sequence[int], criteria: Iterable[str], frames: int = 2, name: str = "vit mix"
) -> tuple[Case, ...]:
    """Return cases with equal numbers of adaptive tokens, whose patches are split by different criteria.

    Args:
        sizes: sizes of the patches, coarse to fine.
        budgets: numbers of tokens.
        criteria: criteria of the refinement.
        frames: number of frames of a patch.
        name: begin of the series' names, which differs for other sizes in the same study.
    """
    return tuple(
        Case(
            f"{name} by {criterion}",
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


def resolution_cases(resolutions: Sequence[int], trajectories: int, frames: int) -> tuple[Case, ...]:
    """Return cases of uniform and adaptive tokens on data with increasing numbers of cells and structures of fixed size.

    The coarse patches have a fixed number of cells in one adaptive series, and a fixed share of the domain in the other.
    """

    def ways(cells: int) -> dict[str, tuple[str, ...]]:
        levels = list(itertools.takewhile(lambda size: size >= 8, (cells // 4 // 2**level for level in range(cells))))
        return {
            "uniform 8": uniform(8),
            "mix 32 to 16 to 8": adaptive("mix", (32, 16, 8), 0.2),
            "mix a quarter of the width to 8": adaptive("mix", levels, 0.1),
        }

    return tuple(
        Case(series, str(cells), settings, (Simulated(THERMALS, cells, trajectories, frames),))
        for cells in resolutions
        for series, settings in ways(cells).items()
    )


def _five_systems(cells: int, trajectories: int, frames: int) -> tuple[Simulated, ...]:
    """Return the five systems of PDEBench on square grids; compressible flow in 21 frames, whose cost is highest."""
    names = ("shallow_water", "diffusion_reaction", "incompressible", "compressible_rand", "compressible_turb")
    return tuple(
        Simulated(name, cells, trajectories, 21 if name.startswith("compressible") else frames) for name in names
    )


def _thermals(cells: int, trajectories: int, frames: int) -> tuple[Simulated, ...]:
    return (Simulated(THERMALS, cells, trajectories, frames),)


_tiny = partial(Table, BASE, seeds=1, rollout=4, max_windows=16)  # minutes, to see that a study works


def _adaptivity() -> Pretrainings:
    mixed, both = (32, 16, 8), ("mix", "mul")
    in_time = partial(adaptivity_cases, frames=1, settings=(IN_TIME,))
    laptop = adaptivity_cases(("vit",), (32, 16, 8, 4), ((32, 8), mixed), (0.02, 0.1, 0.2, 0.4, 0.8), both)
    laptop += in_time(("svit", "avit"), mixed, (mixed,), (0.1, 0.4), both)
    laptop += criterion_cases(mixed, BUDGETS, CRITERIA.own)
    alone = in_time(("vit",), (16, 8), (mixed,), (0.1,))
    laptop += tuple(replace(case, series=f"{case.series} of one frame") for case in alone)
    small = adaptivity_cases(("vit",), (16,))
    small += criterion_cases(mixed, (32,), ("variance", "last_change", "second_difference", "random"))
    paper = adaptivity_cases(("vit", "svit", "avit"), mixed, ((32, 8),), (0.2, 0.4, 0.6), frames=1)
    paper += adaptivity_cases(("vit",), (), ((32, 8), mixed), (0.02, 0.1, 0.2, 0.4, 0.6, 0.8), both, frames=1)
    paper += criterion_cases(mixed, (PAPER_BUDGET,), CRITERIA.own, frames=1)
    again = ("parallel.checkpoint_blocks=every_other",)  # or it does not fit on a die of Frontier
    paper = tuple(
        replace(case, settings=(*case.settings, *again)) if case.name == "avit-uniform-8" else case
        for case in dict.fromkeys(paper)  # the paper's thresholds of `vit` are in both
    )
    against = tuple(f"{scheme}-uniform-{size}" for scheme in ("vit", "svit", "avit") for size in (16, 8))
    alone_too = tuple(f"vit-uniform-of-one-frame-{size}" for size in (16, 8))  # the windows of a longer history
    tiny = adaptivity_cases(("vit",), (16, 8), ((16, 8),), (0.2,))
    tables = {
        "tiny": _tiny(tiny, against[:2], _thermals(64, 10, 31), ("train.steps=40",)),
        "small": Table(
            BASE,
            small,
            ("vit-uniform-16", "vit-mix-by-random-32"),
            _thermals(128, 24, 31),
            ("train.steps=250", SMALL_SPLIT),
            max_windows=40,
        ),
        "laptop": Table(
            BASE,
            laptop,
            against + alone_too,
            _thermals(128, 60, 51),
            ("train.steps=400", *MUON),
            max_windows=60,
            controls=tuple(f"vit-mix-by-random-{each}" for each in BUDGETS),
        ),
        "paper": Table(
            PAPER_THERMALS,
            paper,
            against,
            max_windows=1000,
            controls=(f"vit-mix-by-random-{PAPER_BUDGET}",),
            grids=((1, 256, 256),),
            ranks=32,
        ),
    }
    return Pretrainings("Adaptive tokens against uniform ones", tables, of_one_scheme=True)


def _fine_grid() -> Pretrainings:
    """Return the test of the paper's claim: network and grid so large that tokens cost most of a step, patches of one frame.

    Uniform patches of 16 x 16 cells give 256 tokens, those of 8 x 8 give 1,024. By the plan, a step with 130 tokens takes
    half the time of one with 256, and a tenth of one with 1,024. Measured, 500 steps with 130 take 1.2 of the time of 300
    with 256, as 360 with 256 do, and 600 with 64 (uniform patches of 32 x 32) 1.1 to 1.3 of it.
    """

    def longer(case: Case, steps: int) -> Case:
        label = f"{case.label} for {steps} steps".strip()
        return replace(case, label=label, settings=(*case.settings, f"train.steps={steps}"))

    even = adaptivity_cases(("vit",), (32, 16, 8), frames=1)
    (coarse,) = criterion_cases((32, 16), (130,), ("variance",), frames=1, name="vit mix 32 to 16")
    laptop = (
        *even,
        longer(replace(even[0], series="vit uniform 32", label=""), 600),
        longer(replace(even[1], series="vit uniform 16", label=""), 360),
        *criterion_cases((32, 16, 8), (100, 130, 256), ("variance",), frames=1),
        *criterion_cases((32, 16, 8), (130,), ("second_difference", "random"), frames=1),
        coarse,
        longer(coarse, 500),
    )
    tiny = adaptivity_cases(("vit",), (16, 8), frames=1)
    tiny += criterion_cases((16, 8), (34,), ("variance", "random"), frames=1)
    references = ("vit-uniform-16", "vit-uniform-8")
    rates = (
        "train.learning_rate=1.0e-3",  # here as good as MUON's
        "train.optimizer=muon",
        "train.muon.learning_rate=1.0e-2",
    )
    tables = {
        "tiny": _tiny(tiny, references, _thermals(64, 10, 31), ("train.steps=40",)),
        "laptop": Table(
            BASE,
            laptop,
            references,
            _thermals(256, 24, 31),
            ("model.size=Ti", "train.steps=300", *rates, "train.checkpoint_every=50", SMALL_SPLIT),
            max_windows=40,
            controls=("vit-mix-by-random-130",),
        ),
    }
    title = "Adaptive tokens against uniform ones on a fine grid"
    return Pretrainings(title, tables, ("tokens", "training_seconds", "forecast_seconds", "peak_memory_bytes"))


def _schemes() -> Pretrainings:
    fine, sizes = (IN_TIME, *uniform(8, frames=1)), ("micro", "mini", "Ti")
    tables = {
        "tiny": _tiny(
            scheme_cases(("micro",)), ("avit-micro",), _five_systems(32, 8, 13)[:2], ("train.steps=40", *fine)
        ),
        "laptop": Table(
            BASE,
            scheme_cases(sizes),
            tuple(f"avit-{size}" for size in sizes),
            _five_systems(64, 60, 51),
            ("train.steps=400", "train.micro_batch=4", "train.checkpoint_every=100", *MUON, *fine),
            max_windows=14,  # of each of five systems: with 40, scoring would take as long as the training
        ),
        "paper": Table(
            "launch/runs/paper_pretrain_vit_b.yaml",
            scheme_cases(("Ti", "S", "B")),
            ("avit-Ti", "avit-S", "avit-B"),
            max_windows=1000,
            grids=(*[(1, 128, 128)] * 3, (1, 512, 512)),
            ranks=92 * 8,
        ),
    }
    title = "Attention schemes against parameters, time and memory"
    return Pretrainings(title, tables, ("parameters", "step_seconds", "peak_memory_bytes"))


def _scaling_of_tokens() -> Pretrainings:
    def at(resolutions: Sequence[int], trajectories: int, frames: int, *settings: str, **rest: Any) -> Table:  # noqa: ANN401
        cases, of = resolution_cases(resolutions, trajectories, frames), (f"uniform-8-{cells}" for cells in resolutions)
        return Table(BASE, cases, settings=settings, controls=tuple(of), **rest)

    laptop = ("train.steps=400", "train.micro_batch=4", "train.checkpoint_every=100", SMALL_SPLIT)
    tables = {
        "tiny": at((32, 64), 8, 21, "train.steps=40", seeds=1, rollout=4, max_windows=16),
        "small": at((64, 128, 256), 4, 11, "train.steps=60", SMALL_SPLIT, seeds=1, rollout=5, max_windows=8),
        "laptop": at((64, 128, 256, 512), 12, 31, *MUON, *laptop, max_windows=40),
        "paper": at((256, 512, 1024), 120, 101),
    }
    return Pretrainings("Tokens and time against resolution, structures of one size", tables, grows=True)


def _long_sequences() -> Pretrainings:
    """Return more and more tokens of the same fields, with short attentions; `small` trains longer, on one rank.

    At `laptop`, the largest number of tokens is the largest that two cores can train on, in few steps of one sample.
    """

    def at(sizes: Sequence[int], amounts: Sequence[float], ranks: int, *settings: str, **rest: Any) -> Table:  # noqa: ANN401
        cases = adaptivity_cases(("avit",), sizes, ((sizes[0], sizes[-1]),), amounts, frames=1)
        start = f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone --nproc-per-node {ranks}"
        shared = (f"parallel.sequence_parallel_size={ranks}", *settings)
        launcher, of = start if ranks > 1 else "", (f"avit-uniform-{sizes[0]}",)
        return Table(BASE, cases, of, settings=shared, seeds=1, ranks=ranks, launcher=launcher, **rest)

    small = (IN_TIME, "train.steps=400", "train.micro_batch=4", "train.checkpoint_every=100", *MUON)
    laptop = ("train.steps=300", "train.micro_batch=1", "train.checkpoint_every=50", *MUON, SMALL_SPLIT)
    few = (0.2, 0)  # 0 splits wherever the field varies: fine patches that attend as coarse ones do
    tables = {
        "tiny": at((8, 4), (0.2,), 2, "train.steps=40", data=_thermals(64, 8, 13), rollout=4, max_windows=8),
        "small": at((16, 8, 4, 2), few, 1, *small, data=_five_systems(64, 60, 51), max_windows=14),
        "laptop": at((16, 8, 4, 2), (0.2,), 4, *laptop, data=_thermals(512, 12, 31), rollout=5, max_windows=12),
    }
    return Pretrainings("More and more tokens of the same fields", tables)


PRETRAININGS = {
    "adaptivity": _adaptivity(),
    "fine_grid": _fine_grid(),
    "schemes": _schemes(),
    "scaling_of_tokens": _scaling_of_tokens(),
    "long_sequences": _long_sequences(),
}
"""The studies that pretrain many models, by their names in ``tools/reproduce.py``."""

CELLS, MATEY, JOINT = "cells", "MATEY", "joint"
COMPARED = ("stencil", "ResNet", "small U", "U-Net", "FNO", CELLS, MATEY, JOINT)
"""Models of `peers`: the peers, MATEY's network on the cells without tokens, MATEY on each system, and on all together."""

_TWO = ("shallow_water", "diffusion_reaction")
PEERS_SCALES = {
    "tiny": PeersScale("2", 1, 16, data=tuple(Simulated(system, 32, 10, 13) for system in _TWO)),
    "laptop": PeersScale("30,110", 3, 200, data=tuple(Simulated(system, 64, 200, 101) for system in _TWO)),
    "paper": PeersScale(
        "3600",
        3,
        1000,
        "cuda",
        paths=dict(zip(_TWO, ("data/pdebench/2D_rdb_NA_NA.h5", "data/pdebench/2D_diff-react_NA_NA.h5"), strict=True)),
    ),
}
"""``laptop`` has the demo's data and costs like those of `make demo`; ``paper`` the official files of 128 x 128 cells."""

STARTS = ("pretrained", "random", "stencil", "ResNet", "U-Net")
"""Models of `data_efficiency`: fine-tuned from a pretrained model or from random weights, and peers on the same data."""

STARTED_PEERS = STARTS[2:]
PAPER_SIZES = {"thermals": "1,6,12,24,48,96", "mhd": "1,6,12,24"}
LAPTOP = FinetuneScale(
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
    new_rows={
        "thermals": "finetune.new_rows_of={velocity_z: copy:velocity_y}",
        "mhd": "finetune.new_rows_of={magnetic_x: copy:velocity_x, magnetic_y: copy:velocity_y}",
    },
    max_windows=200,
    simulates=True,
)
FINETUNE_SCALES = {
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
    "paper": FinetuneScale(
        "launch/runs/finetune_{system}.yaml",
        sizes=PAPER_SIZES,
        modes="prepost,all,lora",
        seeds=3,
        peer_seconds=3600,
        mode_settings={"all": ("train.learning_rate=5.0e-5", "train.weight_decay=0")},
        resolution={"thermals": 256, "mhd": 128},
        ranks=64,
    ),
}
"""The scales of `data_efficiency`."""


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
    """Return, for `check_overrides`, what models of a study state for themselves; without it they are not what their names say.

    Their steps and their share of a machine may be overridden, to try a study.
    """
    models: dict[str, str] = {}
    for case in cases:
        keys = [setting.partition("=")[0] for setting in case.settings] + ["data.sets"] * bool(case.data)
        models = dict.fromkeys(keys, case.name) | models
    return {
        key: f"{name} would not be what the name says; leave it out, or choose other --models."
        for key, name in models.items()
        if key.startswith(("model.", "tokens.", "data."))
    }
