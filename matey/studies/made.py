"""Records the origin of a study's points (code version, processor, day) for the text under the table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from matey.checkpoints.durable import replace_text
from matey.config.files import ROOT, is_installed

MADE = "made"
MACHINE = ("processor", "cores")
THEN = ", then "


def note_made(out: Path, name: str) -> None:
    """Write the origin of a point before it is trained; of one that is continued, all its versions of the code.

    It is not in the point's own folder, which a run takes only if it is empty.

    Args:
        out: folder of the study.
        name: name of the point.
    """
    codes = dict.fromkeys([*_made(out, name).get("code", "").split(THEN), _code()])
    _write(out, name, {**_here(), "code": THEN.join(filter(None, codes))})


def note_timed(out: Path, name: str) -> None:
    """Add to the origin of a point that its times were measured again, after its training, by this version on this machine."""
    _write(out, name, {**_made(out, name), "timed": _here()})


def made_text(out: Path, names: Iterable[str]) -> str:
    """Return a sentence for each combination of code and machine that made these points of a study, or timed them again."""
    made = [facts for name in names if (facts := _made(out, name))]
    trained = [facts for facts in made if "code" in facts]
    timed = [facts["timed"] for facts in made if "timed" in facts]
    sentences = [*_sentences("{} by", trained), *_sentences("Times of {} measured again, in turn, by", timed)]
    if len({tuple(facts.get("timed", facts)[key] for key in MACHINE) for facts in made}) > 1:
        sentences.append("Costs are means over these machines.")
    return "\n".join(sentences)


def _sentences(head: str, origins: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield a sentence for each combination of code and machine, which begins with a head and the number of its trainings."""
    days = defaultdict(list)
    for facts in origins:
        days[(facts["code"], *(facts[key] for key in MACHINE))].append(facts["day"])
    for (code, processor, cores), of in days.items():
        span = " to ".join(dict.fromkeys((min(of), max(of))))
        trainings = f"{len(of)} training{'s' if len(of) > 1 else ''}"
        yield f"{head.format(trainings)} {code} on {cores} cores of {processor}, {span}."


def _here() -> dict[str, Any]:
    """Return the version of the code, the machine and the day."""
    return {"code": _code(), "processor": _processor(), "cores": os.cpu_count(), "day": date.today().isoformat()}


def _write(out: Path, name: str, facts: Mapping[str, Any]) -> None:
    path = out / MADE / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(facts) + "\n")


def _made(out: Path, name: str) -> dict[str, Any]:
    """Return what is known of a point's origin: nothing if an earlier version was stopped while it wrote that."""
    earlier = out / "points" / name / "made.json"  # where an earlier version wrote it
    for path in (out / MADE / f"{name}.json", earlier):
        try:
            known = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if _is_origin(known) or "code" not in known and _is_origin(known.get("timed")):
            return known
    return {}


def _is_origin(facts: object) -> bool:
    names = ("code", "processor", "day")
    return isinstance(facts, dict) and all(isinstance(facts.get(name), str) for name in names) and "cores" in facts


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
