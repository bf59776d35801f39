"""Pictures without PyTorch and without a display: figures as PNG, and frames of data sets beside each other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from matey.data import DataError, Trajectory, TrajectorySet


def to_png(figure: Figure) -> bytes:
    """Render a figure without a display."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure to a file.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_bytes(to_png(figure))


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


COLUMNS = 5  # of a contact sheet


def first_readable(data: TrajectorySet) -> tuple[TrajectorySet, Trajectory, list[int], np.ndarray] | None:
    """Read the frames to draw from the first trajectory without faults in them; None if all have faults."""
    for index, about in enumerate(data.trajectories):
        times = sorted({round(t) for t in np.linspace(0, about.num_frames - 1, COLUMNS)})
        try:
            return data, about, times, np.concatenate([data.read(index, t, t + 1) for t in times])
        except DataError:
            continue
    return None


def contact_sheet(drawn: Sequence[tuple[TrajectorySet, Trajectory, list[int], np.ndarray]]) -> Figure:
    """Draw a row of frames for each field of each data set, with one colour scale per row."""
    rows = [(data, about, times, frames, f) for data, about, times, frames in drawn for f in range(len(data.fields))]
    heights = [float(np.clip(shape[0] / shape[1], 0.3, 1.0)) for shape in (size(about) for _, about, *_ in rows)]
    figure = Figure(figsize=(2.2 * COLUMNS, 2.0 * sum(heights) + 0.3 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(rows), COLUMNS, squeeze=False, height_ratios=heights)
    for panel, (data, about, times, frames, number) in zip(panels, rows, strict=True):
        draw_row(panel, about, times, frames[:, number, about.grid[0] // 2])  # the middle of a grid in three dimensions
        panel[0].set_ylabel(literal(f"{data.fields[number]}\n[{data.units[number]}]"), fontsize=7)
        if number == 0:
            panel[0].set_title(literal(f"{data.system}, {about.name}\nframe {times[0]}"), fontsize=8, loc="left")
    return figure


def draw_row(panel: np.ndarray, about: Trajectory, times: list[int], values: np.ndarray) -> None:
    """Draw frames ``(t, y, x)`` of one field beside each other."""
    height, width = size(about)
    # Most systems start from noise or a jump and decay: with frame 0 in the scale, the other frames would be one colour.
    low, high = np.nanpercentile(values[1:] if len(values) > 1 else values, (0.5, 99.5))
    scale = {"vmin": low, "vmax": high, "cmap": "viridis", "origin": "lower", "extent": (0, width, 0, height)}
    for axes in panel:
        axes.set(xticks=[], yticks=[])
    for axes, time, frame in zip(panel, times, values, strict=False):
        image = axes.imshow(frame, aspect=aspect_of(about.grid[1], height, width), **scale)
        axes.set_title(f"frame {time}", fontsize=8, loc="left")
    bar = panel[0].figure.colorbar(image, ax=list(panel), fraction=0.02)
    bar.ax.tick_params(labelsize=7)


def size(about: Trajectory) -> tuple[float, float]:
    """Return the height and width of the domain; a 1-D domain is drawn as a strip."""
    height, width = (count * step for count, step in zip(about.grid[1:], about.spacing[1:], strict=True))
    return (0.3 * width if about.grid[1] == 1 else height), width
