"""The models of the pretraining studies: series of tokens, schemes, criteria and resolutions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matey.studies.simulated import THERMALS, Simulated

IN_TIME = "data.history=4"
"""History for schemes that attend along time first, with patches of one frame: each place then has four tokens in time."""


@dataclass(frozen=True)
class Case:
    """A model of a study.

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

    @property
    def but_for_steps(self) -> tuple[object, ...]:
        """The settings and data apart from the number of training steps: equal for models that differ by this alone."""
        return tuple(each for each in self.settings if not each.startswith("train.steps=")), self.data


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
    sizes: Iterable[int],
    levels: Sequence[Sequence[int]] = (),
    amounts: Sequence[float] = (),
    extra: bool = False,
    frames: int = 2,
    settings: Sequence[str] = (),
) -> tuple[Case, ...]:
    """Return cases of uniform grids and adaptive tokens for each scheme.

    Args:
        schemes: attention schemes.
        sizes: sizes of uniform patches.
        levels: sizes of adaptive patches, coarse to fine.
        amounts: thresholds of the refinement.
        extra: whether to include the token set ``mul``.
        frames: number of frames of a patch.
        settings: further settings of every case.
    """
    sizes, cases = list(sizes), []
    for scheme in schemes:
        shared = (f"model.scheme={scheme}", *settings)
        cases += [Case(f"{scheme} uniform", str(size), (*shared, *uniform(size, frames))) for size in sizes]
        for of_levels in levels:
            text = " to ".join(map(str, of_levels))
            ways = list(itertools.product(("mix", "mul") if extra else ("mix",), amounts))
            cases += [
                Case(
                    f"{scheme} {token_set} {text}",
                    f"{amount:g}",
                    (*shared, *adaptive(token_set, of_levels, amount, frames=frames)),
                )
                for token_set, amount in ways
            ]
    return tuple(cases)


def criterion_cases(
    sizes: Sequence[int],
    budgets: Sequence[int],
    criteria: Iterable[str],
    frames: int = 2,
    name: str = "vit mix",
    steps: int | None = None,
) -> tuple[Case, ...]:
    """Return cases with equal numbers of adaptive tokens, whose patches are split by different criteria.

    Args:
        sizes: sizes of the patches, coarse to fine.
        budgets: numbers of tokens.
        criteria: criteria of the refinement.
        frames: number of frames of a patch.
        name: begin of the series' names, which differs for other sizes in the same study.
        steps: number of steps of the trainings, if it differs from the study's.
    """
    length, trained = (f" for {steps} steps", (f"train.steps={steps}",)) if steps else ("", ())
    return tuple(
        Case(
            f"{name} by {criterion}",
            f"{budget}{length}",
            (
                "model.scheme=vit",
                *trained,
                *adaptive("mix", sizes, budget, "budget", frames),
                f"tokens.criterion={criterion}",
            ),
        )
        for budget, criterion in itertools.product(budgets, criteria)
    )


def scheme_cases(sizes: Sequence[str]) -> tuple[Case, ...]:
    """Return cases of every attention scheme at every size."""
    return tuple(
        Case(scheme, size, (f"model.scheme={scheme}", f"model.size={size}"))
        for scheme, size in itertools.product(("vit", "svit", "avit"), sizes)
    )


def rotary_cases(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Return cases without and with rotary positions; both have the same label."""
    cases = list(cases)
    return tuple(
        replace(case, series=f"{case.series}{name}", settings=(*case.settings, f"model.rotary={rotary}"))
        for name, rotary in (("", "false"), (" rotary", "true"))
        for case in cases
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
