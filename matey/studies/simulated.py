"""Data sets that studies simulate for themselves; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matey.config.shipped import ROOT
from matey.studies.folder import call, script

THERMALS = "colliding_thermals"


@dataclass(frozen=True)
class Simulated:
    """A data set that a study simulates for itself.

    Attributes:
        system: name of the system.
        resolution: number of cells.
        trajectories: number of trajectories.
        frames: number of frames of each.
    """

    system: str
    resolution: int
    trajectories: int
    frames: int

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.system}-{self.resolution}"

    @property
    def grid(self) -> tuple[int, int, int]:
        """Its cells ``z, y, x``."""
        return 1, self.resolution // (2 if self.system == THERMALS else 1), self.resolution


def simulate(data: Simulated, folder: Path, out: Path, work: Path) -> None:
    """Simulate a data set into a folder, unless it is there.

    Args:
        data: the data set.
        folder: folder of the data.
        out: folder of the study, which keeps what the command prints.
        work: folder that the command is started in.

    Raises:
        StudyError: it failed.
    """
    flags = {"out": folder, "trajectories": data.trajectories, "resolution": data.resolution, "frames": data.frames}
    call(out, f"simulate-{data.name}", script(ROOT / "tools/simulate.py", flags, words=[data.system]), work)
