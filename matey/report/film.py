"""Draws the film of a forecast (truth if known, forecast, error, MATEY's mesh of tokens), and series at probed cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from matey.evaluate.forecasts.formats import ffmpeg
from matey.evaluate.forecasts.views import ProbeSeries
from matey.evaluate.rollout import ShownRollout, View
from matey.report.plots import (
    COLOURS,
    PICTURE_STYLE,
    STYLE,
    draw_mesh,
    height_over_width,
    plane,
    show_field,
    words,
)
from matey.tokens.layout import TokenLayout

FRAMES_PER_SECOND = 12
DOTS_PER_INCH = 100
PAGE_FRAMES_PER_SECOND, PAGE_DOTS_PER_INCH = 3, 90
MOST_NAMED = 8  # most series that a legend names
SINCE_THE_BEGINNING = "since the trajectory began"
TRUTH, FORECAST, ERROR, MESH = "truth", "forecast", "forecast \N{MINUS SIGN} truth", "mesh of tokens"


class Film:
    """The figure of a film, redrawn for each picture."""

    @matplotlib.rc_context(PICTURE_STYLE)
    def __init__(
        self, views: Sequence[View], spacing: tuple[float, float, float], field: str, clock: str = SINCE_THE_BEGINNING
    ) -> None:
        """Draw the panels.

        Args:
            views: the first view, and others that make the colour scales; those of the truth hold where it is known.
            spacing: cell size along ``z, y, x``.
            field: name of the field.
            clock: words that follow "time" and explain it.
        """
        self._clock, first = clock, views[0]
        values = [(view.forecast if view.truth is None else view.truth).numpy() for view in views]
        limits = min(map(np.nanmin, values)), max(map(np.nanmax, values))
        errors = (np.abs((v.forecast - v.truth).numpy()) for v in views if v.truth is not None)
        largest_error = max((np.percentile(np.nan_to_num(e, posinf=0), 99.5) for e in errors), default=0) or 1.0
        self._grid, self._spacing = first.forecast.shape, spacing
        names = [FORECAST] if first.truth is None else [TRUTH, FORECAST, ERROR]
        names += [] if first.layout is None else [MESH]
        height = 10 / len(names) * height_over_width(self._grid, spacing) + 1.0
        self.figure = Figure(figsize=(10, height), layout="constrained")
        FigureCanvasAgg(self.figure)
        self._images: dict[str, AxesImage] = {}
        for axes, name in zip(self.figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            low, high = (-largest_error, largest_error) if name == ERROR else limits
            colours = {ERROR: "RdBu_r", MESH: "Greys_r"}.get(name, "viridis")
            empty = np.full(plane(first.forecast).shape, np.nan, dtype=np.float32)
            self._images[name] = show_field(axes, empty, spacing, colours, low, high)
            axes.set(title=name, xticks=[], yticks=[])
            bar = self.figure.colorbar(self._images[name], ax=axes, orientation="horizontal", pad=0.02, aspect=30)
            bar.set_label("error" if name == ERROR else words(field))
            bar.ax.locator_params(nbins=4)
            bar.outline.set_visible(False)

    def draw(self, view: View) -> None:
        """Redraw the figure for a view."""
        forecast = plane(view.forecast)
        pictures = {FORECAST: forecast}
        if TRUTH in self._images:
            truth = np.full_like(forecast, np.nan) if view.truth is None else plane(view.truth)
            pictures |= {TRUTH: truth, ERROR: forecast - truth}
            self._images[TRUTH].axes.set_title(TRUTH if view.truth is not None else "truth has ended")
        for name, values in pictures.items():
            self._images[name].set_data(values)
        if view.layout is not None:
            self._images[MESH].set_data(forecast)
            self._draw_mesh(view.layout)
        self.figure.suptitle(f"{view.step} snapshots ahead, time {view.time:.10g} {self._clock}", fontsize=11)

    def _draw_mesh(self, layout: TokenLayout) -> None:
        axes = self._images[MESH].axes
        axes.set_title(f"mesh: {layout.num_tokens} tokens")
        for collection in list(axes.collections):
            collection.remove()
        draw_mesh(axes, layout, self._grid, self._spacing, 0.8)


def write_film(
    path: Path, film: Film, views: Iterable[View], dots_per_inch: int = DOTS_PER_INCH, rate: int = FRAMES_PER_SECOND
) -> None:
    """Write a film as ``.gif`` or ``.mp4``, see `matey.evaluate.forecasts.formats`.

    Raises:
        OSError: the film cannot be written.
    """
    writer = _writer(path, rate)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    with matplotlib.rc_context(PICTURE_STYLE), writer.saving(film.figure, str(unfinished), dots_per_inch):
        for view in views:
            film.draw(view)
            writer.grab_frame()
            # The panels keep their places from the first picture, because the layout takes half the time of a picture.
            film.figure.set_layout_engine("none")
    unfinished.replace(path)


def film_of(rollout: ShownRollout) -> bytes:
    """Return the film of a rollout as a looping GIF."""
    film = Film(rollout.views, rollout.spacing, rollout.field)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.gif"
        write_film(path, film, rollout.views, PAGE_DOTS_PER_INCH, PAGE_FRAMES_PER_SECOND)
        return path.read_bytes()


@matplotlib.rc_context(STYLE)
def probes_figure(series: Sequence[ProbeSeries], fields: Sequence[str], clock: str) -> Figure:
    """Draw the series at probed cells, the truth dashed, a panel for each field; the words of ``clock`` follow "time"."""
    figure = Figure(figsize=(10, 2.4 * len(fields) + 0.4), layout="constrained")
    panels = figure.subplots(len(fields), 1, squeeze=False, sharex=True)[:, 0]
    for index, (axes, field) in enumerate(zip(panels, fields, strict=True)):
        for own, colour in zip(series, itertools.cycle(COLOURS)):
            cell = ", ".join(map(str, own.cell[1:] if own.cell[0] == 0 else own.cell))
            name = f"trajectory {own.trajectory}, cell {cell}"
            axes.plot(own.times, own.forecast[:, index], color=colour, label=name)
            axes.plot(own.times, own.truth[:, index], "--", color=colour, linewidth=1)
        axes.set(xlabel=f"time {clock} (dashed: known and truth)", ylabel=words(field))
        if len(series) <= MOST_NAMED:
            axes.legend(fontsize=8, ncols=2)
    return figure


def _writer(path: Path, rate: int) -> AbstractMovieWriter:
    if path.suffix == ".gif":
        return PillowWriter(fps=rate)
    matplotlib.rcParams["animation.ffmpeg_path"] = ffmpeg()
    # Players need even numbers of pixels.
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
    return FFMpegWriter(fps=rate, codec="libx264", extra_args=even)
