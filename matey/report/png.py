"""Turns figures into PNG, without any display and without PyTorch."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # which Matplotlib itself writes PNG with

DOTS_PER_INCH = 160
OCTREE = Image.Quantize.FASTOCTREE  # the default makes colours of thin lines that are alike the same


def to_png(figure: Figure, colours: int | None = None) -> bytes:
    """Render a figure, without any display; with at most so many colours it takes a third of the bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    if colours is not None:
        picture = Image.open(buffer).convert("RGB").quantize(colours, OCTREE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def write_png(figure: Figure, path: Path, colours: int | None = None) -> None:
    """Write a figure to a file; where the disk is full, no half picture is left behind, and one that is protected stays.

    Args:
        figure: the figure.
        path: the file.
        colours: number of colours that it may have, for figures of lines.

    Raises:
        OSError: it cannot be written.
    """
    content = to_png(figure, colours)
    file = path.open("wb")  # an error here has changed nothing
    try:
        with file:
            file.write(content)
    except OSError:
        if path.is_file():
            path.unlink()
        raise
