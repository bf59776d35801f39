"""Records the origin of a study's points (code version, processor, day) for the text under the table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path

from matey.config.shipped import ROOT, is_installed

MADE = "made.json"


def note_made(folder: Path) -> None:
    """Write the origin of a point into its folder."""
    facts = {"code": _code(), "processor": _processor(), "cores": os.cpu_count(), "day": date.today().isoformat()}
    (folder / MADE).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def made_text(folders: Iterable[Path]) -> str:
    """Return a sentence for each combination of code and machine that made these points."""
    days = defaultdict(list)
    for folder in folders:
        if (path := folder / MADE).exists():
            facts = json.loads(path.read_text(encoding="utf-8"))
            days[facts["code"], facts["processor"], facts["cores"]].append(facts["day"])
    sentences = []
    for (code, processor, cores), of in days.items():
        span = " to ".join(dict.fromkeys((min(of), max(of))))
        sentences.append(f"{len(of)} trainings by {code} on {cores} cores of {processor}, {span}.")
    return "\n".join(sentences)


def _code() -> str:
    """Return the commit of the checkout, with ``-dirty`` if files differ from it, or the installed version."""
    if is_installed():
        return f"matey-pde {version('matey-pde')}"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return f"commit {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return "a copy of unknown commit"


def _processor() -> str:
    """Return the name of the processor, or its architecture if the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
