"""The tables of the studies: models and training data, at up to four scales; needs no PyTorch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from matey.config.choices import CRITERIA
from matey.studies.pretraining.cases import (
    IN_TIME,
    Case,
    adaptivity_cases,
    criterion_cases,
    resolution_cases,
    rotary_cases,
    scheme_cases,
    uniform,
)
from matey.studies.pretraining.table import Study, Table
from matey.studies.simulated import THERMALS, Simulated

PAPER_THERMALS = "launch/runs/paper_adaptive_thermals.yaml"
BASE = "launch/runs/study_micro.yaml"
PANELS = ("tokens", "forward_operations", "step_seconds", "forecast_seconds")
"""Costs drawn for small networks; their memory is left out, because an empty process already holds most of it."""

MUON = ("train.optimizer=muon", "train.muon.learning_rate=1.0e-2", "train.learning_rate=4.0e-3")
"""The optimizer of networks with tokens alone: it learns faster, and these rates serve `micro` and Ti."""

BUDGETS = (23, 32, 68)
"""Numbers of tokens at which `adaptivity` compares criteria; uniform patches of 16 give 32."""

PAPER_BUDGET = 4096
"""The same at the scale `paper`: as many tokens as uniform patches of 16 give."""

SMALL_SPLIT = "data.split=[0.7, 0.1, 0.2]"
"""Shares of the parts for few trajectories: more of them are held out."""


def _adaptivity() -> Study:
    tiny = adaptivity_cases(("vit",), (16, 8), ((16, 8),), (0.2,))
    laptop = adaptivity_cases(
        ("vit",), (32, 16, 8, 4), ((32, 8), (32, 16, 8)), (0.02, 0.1, 0.2, 0.4, 0.8), extra=True
    ) + adaptivity_cases(
        ("svit", "avit"), (32, 16, 8), ((32, 16, 8),), (0.1, 0.4), extra=True, frames=1, settings=(IN_TIME,)
    )
    laptop += criterion_cases((32, 16, 8), BUDGETS, CRITERIA.own)
    like_others = adaptivity_cases(("vit",), (16, 8), ((32, 16, 8),), (0.1,), frames=1, settings=(IN_TIME,))
    laptop += tuple(replace(case, series=f"{case.series} of one frame") for case in like_others)
    few = ("variance", "last_change", "second_difference", "random")
    small = adaptivity_cases(("vit",), (16,)) + criterion_cases((32, 16, 8), (32,), few)
    paper = adaptivity_cases(("vit", "svit", "avit"), (32, 16, 8), ((32, 8),), (0.2, 0.4, 0.6), frames=1)
    paper += adaptivity_cases(
        ("vit",), (), ((32, 8), (32, 16, 8)), (0.02, 0.1, 0.2, 0.4, 0.6, 0.8), extra=True, frames=1
    ) + criterion_cases((32, 16, 8), (PAPER_BUDGET,), CRITERIA.own, frames=1)
    again = ("parallel.checkpoint_blocks=every_other",)  # or it does not fit on a die of Frontier
    paper = tuple(
        replace(case, settings=(*case.settings, *again)) if case.name == "avit-uniform-8" else case
        for case in dict.fromkeys(paper)  # the paper's thresholds of `vit` are in both
    )
    table = partial(Table, "Adaptive tokens against uniform ones", of_one_scheme=True)
    against = tuple(f"{scheme}-uniform-{size}" for scheme in ("vit", "svit", "avit") for size in (16, 8))
    of, random = ("vit-uniform-16", "vit-mix-by-random-32"), tuple(f"vit-mix-by-random-{each}" for each in BUDGETS)
    tables = {
        "tiny": table(BASE, tiny, against[:2], (Simulated(THERMALS, 64, 10, 31),), ("train.steps=40",), 1, 4, 16),
        "small": table(
            BASE, small, of, (Simulated(THERMALS, 128, 24, 31),), ("train.steps=250", SMALL_SPLIT), max_windows=40
        ),
        "laptop": table(
            BASE,
            laptop,
            against + tuple(f"vit-uniform-of-one-frame-{size}" for size in (16, 8)),  # the windows of a longer history
            (Simulated(THERMALS, 128, 60, 51),),
            ("train.steps=400", *MUON),
            max_windows=60,
            controls=random,
        ),
        "paper": table(
            PAPER_THERMALS,
            paper,
            against,
            max_windows=1000,
            controls=(f"vit-mix-by-random-{PAPER_BUDGET}",),
            grids=((1, 256, 256),),
            ranks=32,
        ),
    }
    return Study(PANELS, tables)


def _fine_grid() -> Study:
    """Return the test of the paper's claim: network and grid so large that tokens cost most of a step, patches of one frame.

    Uniform patches of 16 x 16 cells give 256 tokens, those of 8 x 8 give 1,024. By the plan, a step with 130 tokens takes
    half the time of one with 256, and a tenth of one with 1,024. Measured, 500 steps with 130 take 1.2 of the time of 300
    with 256, as 360 with 256 do, and 600 with 64 (uniform patches of 32 x 32) 1.1 to 1.3 of it.
    """
    coarse = partial(criterion_cases, (32, 16), (130,), ("variance",), frames=1, name="vit mix 32 to 16")
    title = "Adaptive tokens against uniform ones on a fine grid"
    references = tuple(f"vit-uniform-{size}" for size in (16, 8))
    laptop = (
        *adaptivity_cases(("vit",), (32, 16, 8), frames=1),
        *(
            Case(
                f"vit uniform {size}",
                f"for {steps} steps",
                ("model.scheme=vit", f"train.steps={steps}", *uniform(size, frames=1)),
            )
            for size, steps in ((32, 600), (16, 360))
        ),
        *criterion_cases((32, 16, 8), (100, 130, 256), ("variance",), frames=1),
        *criterion_cases((32, 16, 8), (130,), ("second_difference", "random"), frames=1),
        *coarse(),
        *coarse(steps=500),
    )
    tiny = (
        *adaptivity_cases(("vit",), (16, 8), frames=1),
        *criterion_cases((16, 8), (34,), ("variance", "random"), frames=1),
    )
    tables = {
        "tiny": Table(title, BASE, tiny, references, (Simulated(THERMALS, 64, 10, 31),), ("train.steps=40",), 1, 4, 16),
        "laptop": Table(
            title,
            BASE,
            laptop,
            references,
            (Simulated(THERMALS, 256, 24, 31),),
            (
                "model.size=Ti",
                "train.steps=300",
                "train.learning_rate=1.0e-3",  # here as good as MUON's
                "train.optimizer=muon",
                "train.muon.learning_rate=1.0e-2",
                "train.checkpoint_every=50",
                SMALL_SPLIT,
            ),
            max_windows=40,
            controls=("vit-mix-by-random-130",),
        ),
    }
    return Study(("tokens", "training_seconds", "forecast_seconds", "peak_memory_bytes"), tables)


def _five_systems(cells: int, trajectories: int, frames: int) -> tuple[Simulated, ...]:
    """Return the five systems of PDEBench on square grids; compressible flow in 21 frames, whose cost is highest."""
    names = ("shallow_water", "diffusion_reaction", "incompressible", "compressible_rand", "compressible_turb")
    return tuple(
        Simulated(name, cells, trajectories, 21 if name.startswith("compressible") else frames) for name in names
    )


def _schemes() -> Study:
    tiny, laptop, sizes = _five_systems(32, 8, 13)[:2], _five_systems(64, 60, 51), ("micro", "mini", "Ti")
    fine = (IN_TIME, *uniform(8, frames=1))
    table = partial(Table, "Attention schemes against parameters, time and memory")
    paper = "launch/runs/paper_pretrain_vit_b.yaml"
    tables = {
        "tiny": table(BASE, scheme_cases(("micro",)), ("avit-micro",), tiny, ("train.steps=40", *fine), 1, 4, 16),
        "laptop": table(
            BASE,
            scheme_cases(sizes),
            tuple(f"avit-{size}" for size in sizes),
            laptop,
            ("train.steps=400", "train.micro_batch=4", "train.checkpoint_every=100", *MUON, *fine),
            max_windows=14,  # of each of five systems: with 40, scoring would take as long as the training
        ),
        "paper": table(
            paper,
            scheme_cases(("Ti", "S", "B")),
            ("avit-Ti", "avit-S", "avit-B"),
            max_windows=1000,
            grids=(*[(1, 128, 128)] * 3, (1, 512, 512)),
            ranks=92 * 8,
        ),
    }
    return Study(("parameters", "step_seconds", "peak_memory_bytes"), tables)


def _scaling_of_tokens() -> Study:
    title = "Tokens and time against resolution, structures of one size"

    def at(resolutions: Sequence[int], trajectories: int, frames: int, *settings: str, **rest: Any) -> Table:  # noqa: ANN401
        cases, of = resolution_cases(resolutions, trajectories, frames), (f"uniform-8-{cells}" for cells in resolutions)
        return Table(title, BASE, cases, settings=settings, controls=tuple(of), labels_grow=True, **rest)

    tables = {
        "tiny": at((32, 64), 8, 21, "train.steps=40", seeds=1, rollout=4, max_windows=16),
        "small": at((64, 128, 256), 4, 11, "train.steps=60", SMALL_SPLIT, seeds=1, rollout=5, max_windows=8),
        "laptop": at(
            (64, 128, 256, 512),
            12,
            31,
            *MUON,
            "train.steps=400",
            "train.micro_batch=4",
            "train.checkpoint_every=100",
            SMALL_SPLIT,
            max_windows=40,
        ),
        "paper": at((256, 512, 1024), 120, 101),
    }
    return Study(PANELS, tables)


def _long_sequences() -> Study:
    """Return more and more tokens of the same fields, with short attentions; `small` trains longer, on one rank.

    At `laptop`, the largest number of tokens is the largest that two cores can train on, in few steps of one sample.
    """

    def at(
        sizes: Sequence[int],
        ranks: int,
        data: tuple[Simulated, ...],
        *settings: str,
        amounts: Sequence[float] = (0.2,),
        **rest: Any,  # noqa: ANN401
    ) -> Table:
        cases = adaptivity_cases(("avit",), sizes, ((sizes[0], sizes[-1]),), amounts, frames=1)
        start = f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone --nproc-per-node {ranks}"
        together = (f"parallel.sequence_parallel_size={ranks}", "train.count_traffic=2")
        title, shared = "More and more tokens of the same fields", (*(together if ranks > 1 else ()), *settings)
        launcher, of = start if ranks > 1 else "", (f"avit-uniform-{sizes[0]}",)
        return Table(title, BASE, cases, of, data, shared, seeds=1, ranks=ranks, launcher=launcher, **rest)

    tables = {
        "tiny": at((8, 4), 2, (Simulated(THERMALS, 64, 8, 13),), "train.steps=40", rollout=4, max_windows=8),
        "small": at(
            (16, 8, 4, 2),
            1,
            _five_systems(64, 60, 51),
            IN_TIME,
            "train.steps=400",
            "train.micro_batch=4",
            "train.checkpoint_every=100",
            *MUON,
            amounts=(0.2, 0),  # 0 splits wherever the field varies: fine patches that attend as coarse ones do
            max_windows=14,
        ),
        "laptop": at(
            (16, 8, 4, 2),
            4,
            (Simulated(THERMALS, 512, 12, 31),),
            "train.steps=300",
            "train.micro_batch=1",
            "train.checkpoint_every=50",
            *MUON,
            SMALL_SPLIT,
            rollout=5,
            max_windows=12,
        ),
    }
    return Study(PANELS, tables)


def _positions() -> Study:
    """Return models with and without rotary positions, with patches of two frames and, in each scheme, of one."""
    tiny = adaptivity_cases(("vit",), (16, 8))
    in_time = adaptivity_cases(("vit", "svit", "avit"), (8,), frames=1, settings=(IN_TIME,))
    laptop = (
        *adaptivity_cases(("vit",), (16, 8), ((32, 16, 8),), (0.1, 0.2)),
        *(replace(case, series=f"{case.series} of one frame") for case in in_time),
    )

    def table(cases: Sequence[Case], *data: Simulated, settings: tuple[str, ...], **rest: Any) -> Table:  # noqa: ANN401
        of, title = tuple(case.name for case in cases), "Rotary positions against the position embedding alone"
        cases = rotary_cases(cases)
        return Table(title, BASE, cases, (), data, settings, controls=of, of_one_scheme=True, **rest)

    tiny_data, laptop_data = Simulated(THERMALS, 64, 10, 31), Simulated(THERMALS, 128, 60, 51)
    tables = {
        "tiny": table(tiny, tiny_data, settings=("train.steps=40",), seeds=1, rollout=4, max_windows=16),
        "laptop": table(laptop, laptop_data, settings=("train.steps=400", *MUON), max_windows=60),
    }
    return Study(PANELS, tables)


STUDIES: dict[str, Callable[[], Study]] = {
    "adaptivity": _adaptivity,
    "fine_grid": _fine_grid,
    "schemes": _schemes,
    "scaling_of_tokens": _scaling_of_tokens,
    "long_sequences": _long_sequences,
    "positions": _positions,
}
"""The studies by their names in ``tools/reproduce.py``."""
