"""A study's table: its models, training data and settings at one scale; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field

from matey.studies.pretraining.cases import Case
from matey.studies.simulated import Simulated


@dataclass(frozen=True)
class Point:
    """One training of a study.

    Attributes:
        case: the model.
        seed: seed of the stream of samples and of the weights.
    """

    case: Case
    seed: int

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return f"{self.case.name}-seed{self.seed}"


@dataclass(frozen=True)
class Table:
    """A study at one scale.

    Attributes:
        title: the study's question in a few words.
        config: path of the run YAML of every point.
        cases: the models.
        references: names of the cases that all others are compared with.
        of_one_scheme: whether a reference is compared with cases of its own attention scheme only.
        controls: names of the cases that only those of the same label are compared with: those of as many tokens, or cells.
        data: the data sets to simulate; if empty, those of the YAML, which must exist.
        settings: overrides of the YAML for every point.
        seeds: number of trainings of each model.
        rollout: forecast horizon in snapshots.
        max_windows: largest number of windows to score each training on, per system and lead.
        labels_grow: whether the labels of a line of the plot are numbers that costs grow with.
        grids: cells ``z, y, x`` of the YAML's data sets, for a plan while these do not exist.
        ranks: intended number of ranks of each training.
        launcher: command before ``launch/pretrain.py`` that starts the ranks; if empty, this Python or the user's launcher.
    """

    title: str
    config: str
    cases: tuple[Case, ...]
    references: tuple[str, ...] = ()
    data: tuple[Simulated, ...] = ()
    settings: tuple[str, ...] = ()
    seeds: int = 3
    rollout: int = 10
    max_windows: int = 200
    of_one_scheme: bool = False
    controls: tuple[str, ...] = ()
    labels_grow: bool = False
    grids: tuple[tuple[int, int, int], ...] = ()
    ranks: int = 1
    launcher: str = ""

    def points(self, seeds: int | None = None) -> list[Point]:
        """Return all trainings, seed by seed, so that early results show every model."""
        return [Point(case, seed) for seed in range(seeds or self.seeds) for case in self.cases]

    def line_of(self, series: str) -> list[str]:
        """Return the names of the cases between which a line of the plot may be read.

        They are those of the series. If they differ by their numbers of steps alone, so do others that belong to the line: the
        same model, trained for other numbers of steps.
        """
        own = [case for case in self.cases if case.series == series]
        models = {case.but_for_steps for case in own}
        return [case.name for case in (own if len(models) > 1 else self.cases) if case.but_for_steps in models]

    def data_of(self, case: Case) -> tuple[Simulated, ...]:
        """Return the simulated training data sets of a case."""
        return case.data or self.data

    def grids_of(self, case: Case) -> tuple[tuple[int, int, int], ...]:
        """Return the cells ``z, y, x`` of each training data set of a case."""
        return tuple(data.grid for data in self.data_of(case)) or self.grids


@dataclass(frozen=True)
class Study:
    """A study of one question, at several scales.

    Attributes:
        costs: the costs on the horizontal axes of the plot, see `matey.studies.pretraining.costs.COSTS`.
        tables: the study at each scale.
    """

    costs: tuple[str, ...]
    tables: dict[str, Table] = field(default_factory=dict)
