"""A page that shows the progress of runs and reloads itself while a run is watched."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from matey.report.page import figure, heading, page, paragraph, table
from matey.report.pictures import literal, to_png
from matey.report.plots import BELOW, COLOURS, STYLE
from matey.report.progress import Progress, curves_of, run_rows, system_rows


def write_page(path: Path, runs: Sequence[Progress], refresh: int | None = None) -> None:
    """Write the progress page.

    Args:
        path: HTML file to write; a reader sees either the old page or the new one.
        runs: the runs.
        refresh: seconds after which a browser reloads the page, or None.
    """
    parts = [
        heading(1, ", ".join(run.name for run in runs)),
        paragraph(f"As of {datetime.datetime.now():%F %T}.", "soft"),
    ]
    if any(run.steps or run.validations for run in runs):
        parts.append(figure(to_png(progress_figure(runs)), "Left: running mean of the loss. Right: each validation."))
    parts.append(table(*run_rows(runs)))
    head, rows = system_rows(runs)
    if rows:
        parts += [heading(2, "Best validation"), paragraph("NRMSE, and over persistence's."), table(head, rows)]
    html = page(f"{runs[0].name} - MATEY", parts)
    if refresh is not None:
        html = html.replace("<title>", f'<meta http-equiv="refresh" content="{refresh}">\n<title>', 1)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(html, encoding="utf-8")
    unfinished.replace(path)


@matplotlib.rc_context(STYLE)
def progress_figure(runs: Sequence[Progress]) -> Figure:
    """Draw loss and validation error against the steps, a curve for each run."""
    drawn = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (title, curves) in zip(drawn.subplots(1, 2), curves_of(runs).items(), strict=True):
        for index, curve in enumerate(curves):
            marker = "o-" if len(curve.values) < 30 else "-"
            axes.plot(
                curve.places, curve.values, marker, ms=3, color=COLOURS[index % len(COLOURS)], label=literal(curve.name)
            )
        axes.set(title=title, xlabel="step", yscale="log")
        axes.legend(fontsize=8, **BELOW)
    return drawn
