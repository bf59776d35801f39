"""The data sets that studies simulate; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matey.config.files import ROOT
from matey.studies.folder import call, script

THERMALS = "colliding_thermals"


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


def simulate(data: Simulated, folder: Path, out: Path, work: Path) -> None:
    """Simulate a data set into a folder, unless it exists.

    Args:
        data: the data set.
        folder: folder of the data.
        out: folder of the study, which gets the log of the command.
        work: folder in which the command is started.

    Raises:
        StudyError: the simulation failed.
    """
    flags = {"out": folder, "trajectories": data.trajectories, "resolution": data.resolution, "frames": data.frames}
    call(out, f"simulate-{data.name}", script(ROOT / "tools/simulate.py", flags, words=[data.system]), work)
