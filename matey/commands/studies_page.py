"""Puts all studies of a folder on one page, for tools/reproduce.py."""

from __future__ import annotations

import argparse
import csv
import json
from datetime import datetime
from html import escape
from pathlib import Path

from matey.checkpoints.run_files import REPORT
from matey.report.page import figure, heading, page, paragraph
from matey.report.page import table as html_table
from matey.studies.folder import STUDY, StudyError
from matey.studies.pretraining.tables import STUDIES

MOST_ROWS = 60
"""Rows of a table that the page shows where a study has no laid-out table; all are in its CSV."""


def report(args: argparse.Namespace) -> None:
    """Write one self-contained page of all studies in a folder.

    Raises:
        StudyError: there is none.
    """
    out = args.out.absolute()
    studies = [path.parent for path in sorted([*out.glob(STUDY), *out.glob(f"*/{STUDY}")])]
    if not studies:
        raise StudyError(f"{out} holds no study; run one with --out {args.out} first.")
    body = [heading(1, "Studies"), paragraph(f"{datetime.now():%Y-%m-%d %H:%M}, {out.name}", "soft")]
    for folder in studies:
        body += _section(folder)
    (out / REPORT).write_text(page("MATEY: studies", body), encoding="utf-8")
    print(f"Page: {out / REPORT}")


def _section(folder: Path) -> list[str]:
    """Return the section of one study: its results so far."""
    facts = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    name = facts.pop("study", folder.name)
    known = STUDIES.get(name)
    title = f"{name}: {known().tables[facts['scale']].title}" if known else name
    section = [heading(2, title), paragraph(", ".join(f"{key}: {value}" for key, value in facts.items()), "soft")]
    pictures, texts = sorted(folder.glob("*.png")), sorted(folder.glob("*.txt"))
    section += [figure(path.read_bytes(), f"{name}: {path.stem}") for path in pictures]
    section += [
        f'<div class="wide"><pre><code>{escape(path.read_text(encoding="utf-8"))}</code></pre></div>' for path in texts
    ]
    for path in [] if texts else sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        section.append(html_table(head, rows[:MOST_ROWS]))
    if not pictures:
        section.append(paragraph("No point is done yet."))
    return section
