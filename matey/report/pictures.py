"""Renders figures as PNG, without a display and without PyTorch."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # Matplotlib itself writes PNG with it

DOTS_PER_INCH = (160, 130, 105, 85)  # the first, unless the file would be too large
OCTREE = Image.Quantize.FASTOCTREE  # the default method merges similar colours of thin lines


def to_png(figure: Figure, colours: int | None = None, most_bytes: float = math.inf) -> bytes:
    """Render a figure without a display; a limit of ``colours`` reduces the size to a third, one of bytes the pixels."""
    FigureCanvasAgg(figure)
    for dots in DOTS_PER_INCH:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots)
        if colours is not None:
            picture = Image.open(buffer).convert("RGB").quantize(colours, OCTREE, dither=Image.Dither.NONE)
            buffer = io.BytesIO()
            picture.save(buffer, format="png", optimize=True)
        if len(buffer.getvalue()) <= most_bytes:
            break
    return buffer.getvalue()


def write_png(figure: Figure, path: Path, colours: int | None = None, most_bytes: float = math.inf) -> None:
    """Write a figure to a file; a full disk leaves no half picture behind, and a protected file is kept.

    Args:
        figure: the figure.
        path: the file.
        colours: largest number of colours, for figures of lines; None is no limit.
        most_bytes: largest size of the file; a figure that would be larger has fewer pixels.

    Raises:
        OSError: the file cannot be written.
    """
    content = to_png(figure, colours, most_bytes)
    file = path.open("wb")  # an error here leaves an older file unchanged
    try:
        with file:
            file.write(content)
    except OSError:
        if path.is_file():
            path.unlink()
        raise


def literal(text: str) -> str:
    """Return a text that a picture shows as it is: matplotlib takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")


LONGEST = 10
"""Largest ratio of the sides of a plane that is drawn to scale."""


def aspect_of(num_rows: int, height: float, width: float) -> Literal["equal", "auto"]:
    """Return Matplotlib's aspect of a plane: a line of cells, and a plane much longer than wide, are stretched to the panel.

    True to scale, nothing of them would be seen.
    """
    return "equal" if num_rows > 1 and 1 / LONGEST <= height / width <= LONGEST else "auto"
