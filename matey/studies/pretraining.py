"""Studies that pretrain many models for the same number of steps, by launch/pretrain.py, as a user does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matey.config import RunConfig, load_config
from matey.config.loading import ROOT, find_shipped
from matey.mistakes import Mistake
from matey.studies.cases import PRETRAININGS, Case, Scale, StudyError
from matey.studies.engine import Study, call, digest, in_yaml
from matey.studies.table import Panel, Row, tasks_in
from matey.studies.trainings import COLUMNS, Training, costs_of, evaluation, plan_text, protocol_of, score_rows

TOGETHER = 4  # samples scored together: 16 with 65,536 tokens each would need more memory than a laptop has


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


def points_of(scale: Scale, seeds: int | None = None, models: str | None = None) -> list[Point]:
    """Return the trainings of some models, or of all, seed by seed, so that early results show every model.

    Raises:
        StudyError: there is no such model.
    """
    names = [case.name for case in scale.cases]
    chosen = models.split(",") if models else names
    if unknown := [name for name in chosen if name not in names]:
        raise StudyError(f"--models: the study has no model {unknown[0]!r}; it has {', '.join(names)}.")
    return [Point(case, seed) for seed in range(seeds or scale.seeds) for case in scale.cases if case.name in chosen]


@dataclass(frozen=True, kw_only=True)
class PretrainingStudy(Study[Point]):
    """A study of `PRETRAININGS`.

    Attributes:
        name: name of the study.
        scale: name of the scale of the study.
    """

    columns = COLUMNS

    name: str
    scale: str

    @property
    def size(self) -> Scale:
        """The models, data and settings at this scale."""
        return PRETRAININGS[self.name].scales[self.scale]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Name, scale and overrides, and digests of YAML, data, settings and protocol; models may be added to a folder."""
        size, files = self.size, (ROOT / self.size.config, find_shipped(self.deepspeed_config))
        made_of = digest(*files, size.data, size.settings, size.rollout, size.max_windows)
        return {"study": self.name, "scale": self.scale, "set": [*self.settings], "made_of": made_of}

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last and take precedence."""
        sets = ", ".join(f"{{path: {in_yaml(self.data_folder(each))}}}" for each in self.size.data)
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *([f"data.sets=[{sets}]"] if sets else []),
            *self.size.settings,
            *point.case.settings,
            *self.settings,
        ]

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point.

        Raises:
            ConfigError: the settings contradict each other.
        """
        return load_config(ROOT / self.size.config, self.overrides(point))

    def plan(self) -> str:
        """Format the expected costs of the remaining trainings."""
        grids = tuple(data.grid for data in self.size.data) or self.size.grids
        trainings = [Training(point.case.name, self.run_config(point), grids) for point in self.waiting]
        return plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the training data, unless it exists."""
        for data in self.size.data:
            self.simulate(data)

    def run_point(self, point: Point) -> list[Row]:
        """Train, score and measure a point; an interrupted point continues from its newest checkpoint."""
        folder, case = self.folder(point), point.case
        self.train(point, "launch/pretrain.py", ROOT / self.size.config, self.overrides(point))
        protocol = protocol_of(self.run_config(point).data.lead_max, self.size.max_windows, self.size.rollout)
        threads = min(self.ranks, os.cpu_count() or 1)  # the cores that the training had
        call(self.out, point.name, evaluation(folder, protocol, folder, batch=TOGETHER, threads=threads), self.work)
        about = {"series": case.series, "label": case.label, "case": case.name, "seed": point.seed}
        try:
            return score_rows(folder, about, costs_of(folder))
        except Mistake as error:
            raise StudyError(f"{point.name}: {error}") from None

    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """Return errors at the shortest and the longest lead against costs."""
        return [
            [
                Panel(own, key, COLUMNS[key].title, f"{lead}: VRMSE / persistence")
                for key in PRETRAININGS[self.name].axes
            ]
            for lead, own in tasks_in(rows, by_system=False).items()
            if lead.startswith("lead")
        ]
