"""Shows the progress of runs while they train, or once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from matey.mistakes import writing
from matey.report.progress import Progress, in_terminal, read_runs, write_page


def watch(folders: Sequence[Path], html: Path | None, every: int, *, once: bool = False) -> int:
    """Show runs, updated after ``every`` seconds, until no further step of any is expected, or ctrl-C; return 0."""
    console = Console()
    runs = read_runs(folders)
    try:
        with Live(in_terminal(runs, console.width), console=console, auto_refresh=False) as live:
            while not (once or all(run.is_over for run in runs)):
                _write(html, runs, every)
                time.sleep(every)
                runs = read_runs(folders)
                live.update(in_terminal(runs, console.width), refresh=True)
    except KeyboardInterrupt:
        pass
    _write(html, runs, None)
    return 0


def _write(html: Path | None, runs: Sequence[Progress], refresh: int | None) -> None:
    if html is not None:
        with writing(html):
            write_page(html, runs, refresh)
