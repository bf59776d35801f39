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
from typing import Any

import torch

from matey.checkpoints.durable import replace_text
from matey.config.shipped import ROOT, is_installed

MADE = "made"
THEN = ", then "


def note_made(out: Path, name: str) -> None:
    """Write the origin of a point before it is trained; of one that is continued, all its versions of the code.

    It is not in the point's own folder, which a run takes only if it is empty.

    Args:
        out: folder of the study.
        name: name of the point.
    """
    codes = dict.fromkeys([*_made(out, name).get("code", "").split(THEN), _code()])
    facts = {"code": THEN.join(filter(None, codes)), "processor": _processor(), "cores": os.cpu_count()}
    path = out / MADE / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps({**facts, "day": date.today().isoformat()}) + "\n")


def made_text(out: Path, names: Iterable[str]) -> str:
    """Return a sentence for each combination of code and machine that made these points of a study."""
    days = defaultdict(list)
    for facts in filter(None, (_made(out, name) for name in names)):
        days[facts["code"], facts["processor"], facts["cores"]].append(facts["day"])
    sentences = []
    for (code, processor, cores), of in days.items():
        span = " to ".join(dict.fromkeys((min(of), max(of))))
        sentences.append(f"{len(of)} trainings by {code} on {cores} cores of {processor}, {span}.")
    if len({key[1:] for key in days}) > 1:
        sentences.append("Costs are means over these machines.")
    return "\n".join(sentences)


def _made(out: Path, name: str) -> dict[str, Any]:
    """Return what is known of a point's origin: nothing if an earlier version was stopped while it wrote that."""
    earlier = out / "points" / name / "made.json"  # where an earlier version wrote it
    for path in (out / MADE / f"{name}.json", earlier):
        try:
            known = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if all(isinstance(known.get(fact), str) for fact in ("code", "processor", "day")) and "cores" in known:
            return known
    return {}


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
    """Return the name of the processor, or its architecture if the system does not tell the name; and that of the GPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} with {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name
