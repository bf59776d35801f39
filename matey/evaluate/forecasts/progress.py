"""Records the progress of a file of forecasts beside it until it is complete, so that an interrupted forecast continues."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.mistakes import regular


@dataclass(frozen=True)
class Progress:
    """The files of a forecast in progress.

    Attributes:
        path: final path of the file, once it is complete.
        made_as: digest of the request and the format, by which a later process recognises the file.
    """

    path: Path
    made_as: str

    @property
    def unfinished(self) -> Path:
        """Path of the file until it is complete."""
        return self.path.with_name(f".{self.path.stem}.unfinished{self.path.suffix}")

    @property
    def record(self) -> Path:
        """Path of the record of completed steps."""
        return self.path.with_name(f".{self.path.name}.progress")

    def done(self) -> list[int] | None:
        """Return the number of completed steps of each trajectory; None if there is no such unfinished file."""
        try:
            record = json.loads(regular(self.record).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no record, or another program's
            return None
        if not (isinstance(record, dict) and record.get("made_as") == self.made_as and self.unfinished.exists()):
            return None
        return [int(steps) for steps in record["done"]]

    @property
    def token(self) -> int:
        """A number drawn when the unfinished file was made, which tells it from all others; -1 if there is no record."""
        try:
            return int(json.loads(regular(self.record).read_text(encoding="utf-8"))["token"])
        except (OSError, ValueError, TypeError, KeyError):
            return -1

    def note(self, done: Sequence[int]) -> None:
        """Record the number of completed steps of each trajectory."""
        new, token = self.record.with_name(f"{self.record.name}.new"), self.token
        about = {"made_as": self.made_as, "token": secrets.randbits(62) if token < 0 else token, "done": list(done)}
        new.write_text(json.dumps(about), encoding="utf-8")
        os.replace(new, self.record)

    def clear(self) -> None:
        """Remove the files that an earlier forecast has left behind."""
        remove(self.unfinished)
        remove(self.record)

    def finish(self) -> None:
        """Give the file its final name, replacing an older file."""
        remove(self.path) if self.path.is_dir() else None
        os.replace(self.unfinished, self.path)
        remove(self.record)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
