"""Puts studies on one page: for each its purpose, its plots, and its tables and sentences as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import REPORT
from matey.mistakes import one_line
from matey.report.page import figure, heading, page, paragraph
from matey.studies.cases import PRETRAININGS, StudyError
from matey.studies.engine import STUDY, facts_in


def write_page_of_all(out: Path) -> Path:
    """Write one self-contained page of all studies in a folder, and return the page's path.

    Raises:
        StudyError: the folder holds no study.
    """
    studies = [path.parent for path in sorted(out.glob(f"*/{STUDY}"))]
    if not studies:
        raise StudyError(f"{out} holds no study; run one with --out {out} first.")
    return write_page(out / REPORT, studies)


def write_page(path: Path, folders: Sequence[Path]) -> Path:
    """Write a self-contained page of the studies in some folders, and return the page's path."""
    about = f"{datetime.now():%Y-%m-%d %H:%M}, {path.absolute().parent.name}"
    body = [heading(1, "Studies"), paragraph(about, "soft"), *(part for each in folders for part in _section(each))]
    replace_text(path, page("MATEY: studies", body))
    return path


def _section(folder: Path) -> list[str]:
    """Return the page's section with the results of one study so far."""
    try:
        facts = facts_in(folder / STUDY)
    except (OSError, ValueError) as error:
        return [heading(2, folder.name), paragraph(f"{folder / STUDY} cannot be read: {one_line(error)}.")]
    name = str(facts.pop("study", folder.name))
    title = f"{name}: {PRETRAININGS[name].title}" if name in PRETRAININGS else name
    shown = [f"{key}: {facts[key]}" for key in ("scale", "system", "data", "set", "mode", "machine") if facts.get(key)]
    section = [heading(2, title), paragraph("; ".join(shown), "soft")]
    section += [figure(path.read_bytes(), f"{name}: {path.stem}") for path in sorted(folder.glob("*.png"))]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.txt"))]
    return section + [f'<div class="wide"><pre><code>{escape(text)}</code></pre></div>' for text in texts]
