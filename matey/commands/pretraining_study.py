"""Runs a study that pretrains many models, and puts all studies of a folder on one page, for tools/reproduce.py."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from matey.commands import ROOT, WORK
from matey.config.shipped import find
from matey.report.page import figure, heading, page, paragraph
from matey.report.page import table as html_table
from matey.report.png import write_png
from matey.studies.folder import Row, StudyError, claim, write_table
from matey.studies.pretraining.figure import study_figure
from matey.studies.pretraining.rows import rows_of, study_table
from matey.studies.pretraining.running import COSTS, Runner
from matey.studies.pretraining.tables import STUDIES, Point

MOST_ROWS = 60
"""Rows of a table that the page shows where a study has no laid-out table; all are in its CSV."""


def pretraining(args: argparse.Namespace) -> None:
    """Run the points that are not done yet; write table and plot after each."""
    study = STUDIES[args.study]()
    table = study.tables[args.scale]
    points = table.points(args.seeds)
    out = args.out.absolute() / args.study
    runner = Runner(
        ROOT, WORK, out, table, args.launcher, str(find(args.deepspeed_config).absolute()), tuple(args.set), args.jobs
    )
    for point in points:
        runner.run_config(point)
    if args.list:
        print("\n".join(f"{point.name}: {' '.join(point.case.settings)}" for point in points))
        return
    claim(out, {"study": args.study, "scale": args.scale, "config": table.config, "set": args.set})
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    runner.simulate(points)
    rows = _write(runner, points, study.costs)
    with tqdm(total=len(points), initial=sum(map(runner.is_done, points)), desc=args.study, unit="run") as bar:
        for _ in runner.run(points):
            rows = _write(runner, points, study.costs)
            bar.update()
    print(study_table(rows, table))
    print(f"\nTable: {out / 'results.csv'}   plot: {out / 'results.png'}")


def _write(runner: Runner, points: Sequence[Point], costs: Sequence[str]) -> list[Row]:
    """Write table and plot of the points that are done."""
    rows = []
    for point in filter(runner.is_done, points):
        folder = runner.folder(point)
        rows += rows_of(point, folder, folder / COSTS)
    if rows:
        write_table(runner.out / "results.csv", rows)
        (runner.out / "results.txt").write_text(study_table(rows, runner.table) + "\n", encoding="utf-8")
        write_png(study_figure(rows, costs), runner.out / "results.png")
    return rows


def report(args: argparse.Namespace) -> None:
    """Write one self-contained page of all studies in a folder.

    Raises:
        StudyError: there is none.
    """
    out = args.out.absolute()
    studies = [path.parent for path in sorted([*out.glob("study.json"), *out.glob("*/study.json")])]
    if not studies:
        raise StudyError(f"{out} holds no study; run one with --out {args.out} first.")
    body = [heading(1, "Studies"), paragraph(f"{datetime.now():%Y-%m-%d %H:%M}, {out.name}", "soft")]
    for folder in studies:
        body += _section(folder)
    (out / "report.html").write_text(page("MATEY: studies", body), encoding="utf-8")
    print(f"Page: {out / 'report.html'}")


def _section(folder: Path) -> list[str]:
    """Return what one study has so far."""
    facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
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
