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
from matey.studies.folder import STUDY, StudyError, facts_in
from matey.studies.pretraining.tables import STUDIES


def write_page_of_all(out: Path) -> Path:
    """Write one self-contained page of all studies in a folder, and return the page's path.

    Raises:
        StudyError: the folder holds no study.
    """
    if (out / STUDY).exists():
        raise StudyError(f"{out} is the folder of one study; give the folder above: --out {out.parent}")
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out} is a file; give the folder of the studies.")
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
    known = STUDIES[name]().tables.get(str(facts.get("scale"))) if name in STUDIES else None
    title = f"{name}: {known.title}" if known else name
    facts = {key: _text(value) for key, value in facts.items() if key not in ("points", "lengths", "made_of", "models")}
    shown = [f"{key}: {value}" for key, value in facts.items() if value not in ("", None)]
    section = [heading(2, title), paragraph("; ".join(shown), "soft")]
    pictures, texts = sorted(folder.glob("*.png")), sorted(folder.glob("*.txt"))
    section += [figure(path.read_bytes(), f"{name}: {path.stem}") for path in pictures]
    section += [
        f'<div class="wide"><pre><code>{escape(path.read_text(encoding="utf-8", errors="replace"))}</code></pre></div>'
        for path in texts
    ]
    if not pictures:
        section.append(paragraph("No point is done yet."))
    return section


def _text(fact: object) -> object:
    """Return the entries of a list or a mapping as text, and any other fact as it is."""
    entries = [f"{name} ({value})" for name, value in fact.items()] if isinstance(fact, dict) else fact
    return ", ".join(map(str, entries)) if isinstance(entries, list) else entries
