"""Fine-tunes and scores the points of the study."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from matey.checkpoints.run_files import CONFIG, RECORDS, REPORT
from matey.config import load_config, load_resolved
from matey.studies.data_efficiency.points import Point, check_data, scores, trajectories_for
from matey.studies.data_efficiency.results import study_figure, study_table
from matey.studies.data_efficiency.scales import MIN_SIMULATED, SCALES, SYSTEMS, Scale
from matey.studies.engine import RunnableStudy
from matey.studies.folder import Row, call, script

FRAMES = 51  # of each simulated trajectory


@dataclass(frozen=True)
class DataEfficiencyStudy(RunnableStudy[Point]):
    """Fine-tuning on more and more trajectories, from a pretrained model and from random weights.

    Attributes:
        root: folder with the scripts and the shipped configurations.
        work: folder that the scripts are started in.
        out: folder of the study.
        system: name of the system, one of `SYSTEMS`.
        scale: name of the scale, one of `SCALES`.
        points: the fine-tunings.
        pretrained: run or model to start from; None for the model in the box.
        launcher: the command before ``launch/finetune.py``.
        deepspeed_config: JSON of DeepSpeed.
        settings: overrides of every point's YAML.
    """

    root: Path
    work: Path
    out: Path
    system: str
    scale: str
    points: Sequence[Point]
    pretrained: str | None = None
    launcher: str = sys.executable
    deepspeed_config: str = "ds_configs/zero1.json"
    settings: tuple[str, ...] = ()
    last_written = REPORT

    @property
    def facts(self) -> Mapping[str, Any]:
        """System, scale, what is started from, trajectories and overrides."""
        return {
            "study": "data_efficiency",
            "system": self.system,
            "scale": self.scale,
            "pretrained": self.pretrained,
            "trajectories": self.num_trajectories,
            "set": [*self.settings],
        }

    @cached_property
    def num_trajectories(self) -> int:
        """Number of trajectories in all, with those that are held out.

        Raises:
            StudyError: the data cannot be read, or holds too few or too short ones.
        """
        data = load_config(self._config, self.settings).data
        largest = max(point.trajectories for point in self.points)
        if self.simulates:
            return max(MIN_SIMULATED, trajectories_for(largest, data))
        return check_data(data, self.work, largest)

    @property
    def simulates(self) -> bool:
        """Whether the study makes its own data."""
        return self.scale == "tiny"

    def prepare(self) -> None:
        """Simulate the data, unless it is there.

        Raises:
            StudyError: it failed.
        """
        if self.simulates:
            flags = {"out": self._data, "resolution": 64, "trajectories": self.num_trajectories, "frames": FRAMES}
            command = script(self.root / "tools/simulate.py", flags, words=[SYSTEMS[self.system]])
            call(self.out, f"simulate-{SYSTEMS[self.system]}", command, self.work)

    def run_point(self, point: Point) -> None:
        """Fine-tune and evaluate one point; an interrupted one goes on from its newest checkpoint.

        Raises:
            StudyError: it failed.
        """
        folder = self.folder(point)
        call(self.out, point.name, self.finetuning(point), self.work)
        lead_max = load_resolved(folder / CONFIG).data.lead_max
        flags = {"checkpoint": folder, "out": folder, "leads": f"1,{lead_max}", "rollout": 0}
        flags |= {"max-windows": self._scale.max_windows}
        call(self.out, point.name, script(self.root / "launch/evaluate.py", flags), self.work)

    def finetuning(self, point: Point) -> list[str]:
        """Return the command that fine-tunes one point."""
        scale, config = self._scale, self._config
        settings = [
            f"output.dir={self.folder(point)}",
            f"train.seed={point.seed}",
            *scale.settings,
            *(dict(scale.system_settings).get(self.system, ()) if self.pretrained is None else ()),
            *dict(scale.mode_settings).get(point.mode, ()),
            *self.settings,
        ]
        if self.simulates:
            settings.append(f"data.sets=[{{path: {self._data}}}]")
        if point.start == "random" and (stated := self._stated_config(point)) is not None:
            config, settings = stated, [setting for setting in settings if not setting.startswith("model.")]
        source = self.pretrained or str(self.root / "models" / "matey-micro")
        flags = {
            "deepspeed_config": self.deepspeed_config,
            "config": config,
            "pretrained": "none" if point.start == "random" else source,
            "train": point.mode,
            "trajectories": point.trajectories,
            "resume": True,
        }
        return script(self.root / "launch/finetune.py", flags, settings, shlex.split(self.launcher))

    def rows_of(self, point: Point) -> list[Row]:
        """Return a row for each lead."""
        return scores(point, self.folder(point) / RECORDS)

    def text(self, rows: Sequence[Row]) -> str:
        """Lay out the errors of each number of trajectories."""
        return study_table(rows)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw the errors against the number of trajectories."""
        return study_figure(rows, self.system)

    @property
    def _scale(self) -> Scale:
        return SCALES[self.scale]

    @property
    def _config(self) -> Path:
        return self.root / self._scale.config.format(system=self.system)

    @property
    def _data(self) -> Path:
        return self.out / "data" / SYSTEMS[self.system]

    def _stated_config(self, point: Point) -> Path | None:
        """Return the configuration of the run from the pretrained model that is otherwise the same, or of one of the same mode.

        It states network and vocabulary in full, and has the rates of its mode.
        """
        twin = replace(point, start="pretrained")
        patterns = (twin.name, f"pretrained-{point.mode}-{point.trajectories}-*", f"pretrained-{point.mode}-*")
        found = (path for name in patterns for path in sorted((self.out / "points").glob(f"{name}/{CONFIG}")))
        return next(found, None)
