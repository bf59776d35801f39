"""Turns figures into PNG, without any display and without PyTorch."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOTS_PER_INCH = 160


def to_png(figure: Figure) -> bytes:
    """Render a figure, without any display."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure to a file; where the disk is full, no half picture is left behind, and one that is protected stays.

    Raises:
        OSError: it cannot be written.
    """
    content = to_png(figure)
    file = path.open("wb")  # an error here has changed nothing
    try:
        with file:
            file.write(content)
    except OSError:
        if path.is_file():
            path.unlink()
        raise
