"""Figures in one style: fields and meshes of tokens, curves of trainings, rollouts and spectra, films, and series at probes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter
from PIL.Image import Dither, Image, Quantize
from torch import Tensor

from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.evaluation import Example
from matey.evaluate.forecasts.formats import ffmpeg
from matey.evaluate.forecasts.series import ProbeSeries
from matey.evaluate.records import Record
from matey.evaluate.rollout import ShownRollout, View
from matey.evaluate.spectra import Spectra
from matey.metrics import vrmse
from matey.report.pictures import aspect_of, literal
from matey.report.progress import smooth
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch

# Okabe and Ito's colours, which colour-blind readers can distinguish, and one of Tol's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
ALL_SYSTEMS = "#000000"
PERSISTENCE = "#7A7A7A"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
PICTURE_STYLE: dict[Any, Any] = {**STYLE, "axes.grid": False, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
"""Place of a legend under its panel, where it covers no curve."""
LEVEL_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")


@matplotlib.rc_context(PICTURE_STYLE)
def forecast_figure(example: Example) -> Figure:
    """Draw, for each field, the last known frame, the truth, the prediction and its error."""
    batch = example.batch
    height = 2.0 * height_over_width(batch.grid, batch.spacing)
    figure = Figure(figsize=(10, height * len(batch.fields) + 0.6), layout="constrained")
    grid = figure.subplots(len(batch.fields), 4, squeeze=False, sharex=True, sharey=True)
    of_fields = zip(batch.fields, example.units, batch.last[0], batch.known_target[0], example.prediction, strict=True)
    for panels, (name, unit, *frames) in zip(grid, of_fields, strict=True):
        last, target, prediction = map(plane, frames)
        error = prediction - target
        for axes, field in zip(panels, (last, target, prediction), strict=False):
            image = show_field(axes, field, batch.spacing, "viridis", np.nanmin(target), np.nanmax(target))
        _add_colour_bar(figure, image, panels[:3])
        largest = float(np.abs(error[np.isfinite(error)]).max(initial=0)) or 1.0
        image = show_field(panels[3], error, batch.spacing, "RdBu_r", -largest, largest)
        _add_colour_bar(figure, image, panels[3:])
        label = words(name) if unit in ("", "1") else f"{words(name)} [{literal(unit)}]"
        panels[0].set_ylabel(f"{label}\n\ny")
    titles = (
        "last known frame",
        f"truth, {example.lead} snapshots later",
        "prediction",
        "prediction \N{MINUS SIGN} truth",
    )
    for top, bottom, title in zip(grid[0], grid[-1], titles, strict=True):
        top.set_title(title)
        bottom.set_xlabel("x")
    return figure


@matplotlib.rc_context(PICTURE_STYLE)
def mesh_figure(examples: Sequence[Example]) -> Figure:
    """Draw the patches of the last frame's tokens over the first field, for examples of one system."""
    grid, spacing = examples[0].batch.grid, examples[0].batch.spacing
    height = 3.2 * height_over_width(grid, spacing)
    figure = Figure(figsize=(10 * len(examples) / 3, height + 0.9), layout="constrained")
    panels = figure.subplots(1, len(examples), squeeze=False)[0]
    for axes, example in zip(panels, examples, strict=True):
        field = plane(example.batch.last[0, 0])
        show_field(axes, field, spacing, "Greys_r", np.nanmin(field), np.nanmax(field))
        assert example.layout is not None  # peers have no mesh
        draw_mesh(axes, example.layout, grid, spacing)
        for patch, colour in zip(example.patches, itertools.cycle(LEVEL_COLOURS)):
            axes.plot([], [], "s", markerfacecolor="none", color=colour, label=f"patch {patch_text(patch)}")
        title = f"frame {example.frame}: {sum(example.tokens_per_level)} of {example.num_uniform_tokens} tokens"
        axes.set(title=title, xlabel="x")
    panels[0].set_ylabel("y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(example.patches))
    return figure


def draw_mesh(
    axes: Axes, layout: TokenLayout, grid: Sequence[int], spacing: tuple[float, float, float], width: float = 1.0
) -> None:
    """Draw the outlines of the last frame's patches in the middle plane, each level in its colour."""
    for level in layout.level.unique().tolist():
        outlines = patches_in_plane(layout.select(layout.level == level), grid, spacing)
        colour = LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
        axes.add_collection(PatchCollection(outlines, facecolor="none", edgecolor=colour, linewidth=width))


MESH_COLOUR = (1, 1, 1, 0.75)


@matplotlib.rc_context(PICTURE_STYLE)
def snapshots_figure(shown: ShownRollout) -> Figure:
    """Draw a column for each view, the last known frame first, with the truth's colour scale."""
    grid = shown.views[0].forecast.shape
    height = 2 * 8.7 / len(shown.views) * height_over_width(grid, shown.spacing) + 0.6
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(2, len(shown.views), squeeze=False)
    truths = [view.truth for view in shown.views if view.truth is not None]
    low, high = min(np.nanmin(plane(truth)) for truth in truths), max(np.nanmax(plane(truth)) for truth in truths)
    for view, truth, column, (error, persistence) in zip(shown.views, truths, panels.T, errors(shown), strict=True):
        for axes, values in zip(column, (view.forecast, truth), strict=True):
            image = show_field(axes, plane(values), shown.spacing, "viridis", low, high)
            axes.set(xticks=[], yticks=[])
        assert view.layout is not None  # only MATEY's rollouts are drawn
        mesh = patches_in_plane(view.layout, grid, shown.spacing)
        column[0].add_collection(PatchCollection(mesh, facecolor="none", edgecolor=MESH_COLOUR, linewidth=0.9))
        when = f"{view.step} snapshots later" if view.step else "last known frame"
        column[0].set_title(f"{when}: {view.layout.num_tokens} tokens")
        if view.step:
            column[1].set_xlabel(f"error {error:.1%}, persistence {persistence:.0%}")
    panels[0, 0].set_ylabel("forecast, mesh of tokens")
    panels[1, 0].set_ylabel("truth")
    bar = figure.colorbar(image, ax=panels[:, -1].tolist(), shrink=0.9, aspect=40, pad=0.04)
    bar.set_label(words(shown.field))
    bar.outline.set_visible(False)
    return figure


def errors(shown: ShownRollout) -> list[tuple[float, float]]:
    """Return the VRMSE of each view's forecast, and that of persistence, the known first view."""

    def error(forecast: Tensor, truth: Tensor) -> float:
        return vrmse(forecast[None, None], truth[None, None]).item()

    known = shown.views[0].forecast
    return [(error(v.forecast, v.truth), error(known, v.truth)) for v in shown.views if v.truth is not None]


def words(name: str) -> str:
    """Return a name as words, for a picture."""
    return literal(name.replace("_", " "))


def plane(field: Tensor) -> np.ndarray:
    """Return the middle plane ``(y, x)`` of a field ``(z, y, x)``."""
    return field[field.shape[0] // 2].numpy()


def show_field(
    axes: Axes, field: np.ndarray, spacing: tuple[float, float, float], colours: str, low: float, high: float
) -> AxesImage:
    """Draw a plane ``(y, x)`` of cells of size ``spacing`` along ``z, y, x``; x runs to the right and y upwards."""
    height, width = field.shape
    up, right = height * spacing[1], width * spacing[2]
    extent, aspect = (0, right, 0, up), aspect_of(height, up, right)
    image = axes.imshow(field, cmap=colours, vmin=low, vmax=high, origin="lower", extent=extent, aspect=aspect)
    axes.locator_params(nbins=4)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def patches_in_plane(layout: TokenLayout, grid: Sequence[int], spacing: tuple[float, float, float]) -> list[Rectangle]:
    """Return the outlines of the last frame's patches that cut the drawn plane, the middle one.

    Args:
        layout: tokens of one sample.
        grid: number of cells along ``z, y, x``.
        spacing: cell size along ``z, y, x``.
    """
    own = layout.select(layout.is_last)
    middle = (grid[0] // 2 + 0.5) / grid[0]
    height, width = grid[1] * spacing[1], grid[2] * spacing[2]
    return [
        Rectangle(((x - dx / 2) * width, (y - dy / 2) * height), dx * width, dy * height)
        for (_, z, y, x), (_, dz, dy, dx) in zip(own.centre.tolist(), own.extent.tolist(), strict=True)
        if abs(z - middle) < dz / 2
    ]


def height_over_width(grid: Sequence[int], spacing: tuple[float, float, float]) -> float:
    """Return the height of the drawn plane divided by its width, within the limits of a page; a line becomes a strip."""
    _, y, x = grid
    return 0.25 if 1 in (y, x) else min(2.0, max(0.25, y * spacing[1] / (x * spacing[2])))


def _add_colour_bar(figure: Figure, image: AxesImage, beside: np.ndarray) -> None:
    bar = figure.colorbar(image, ax=list(beside), fraction=0.06 / len(beside), pad=0.02, aspect=22)
    bar.ax.tick_params(length=2)
    bar.ax.locator_params(nbins=5)
    bar.outline.set_visible(False)
    assert isinstance(bar.formatter, ScalarFormatter)
    bar.formatter.set_powerlimits((-3, 4))


def patch_text(patch: Patch) -> str:
    """Return the size of a patch in space, such as 8×8, or 8×8×8 in three dimensions."""
    _, z, y, x = patch
    return "×".join(str(cells) for cells in ((y, x) if z == 1 else (z, y, x)))


LOGGED = {"loss": "training loss", "valid_vrmse": "VRMSE in validation (dashed: persistence)"}


@matplotlib.rc_context(STYLE)
def training_figure(log: Sequence[dict[str, Any]]) -> Figure:
    """Draw the loss of every logged step and the validation's VRMSE, by system and, of several systems, over all."""
    shown = {key: lines for key in LOGGED if (lines := [line for line in log if key in line])}
    by_system = [line.get(f"{key}_by_system", {}) for key, lines in shown.items() for line in lines]
    colours = dict(zip(dict.fromkeys(system for of in by_system for system in of), itertools.cycle(COLOURS)))
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(shown), sharex=True, squeeze=False)[0]
    for axes, (key, lines) in zip(panels, shown.items(), strict=True):
        curves = {
            name: [(line["step"], line.get(f"{key}_by_system", {}).get(name)) for line in lines] for name in colours
        }
        if len(colours) != 1:
            curves["all that are trained on"] = [(line["step"], line[key]) for line in lines]
        for name, points in curves.items():
            known = [point for point in points if point[1] is not None]  # a step may have no sample of a system
            if not known:  # a system used only for validation has no training loss
                continue
            steps, values = zip(*known, strict=True)
            colour = colours.get(name, ALL_SYSTEMS)
            if key == "loss":
                axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.25)
                axes.plot(steps, smooth(values), color=colour, label=literal(name))
            else:
                axes.plot(steps, values, "o-", color=colour, label=literal(name), ms=3)
        for system, error in lines[-1].get("valid_persistence_by_system", {}).items():
            axes.axhline(error, color=colours.get(system, PERSISTENCE), linestyle=(0, (4, 3)), linewidth=1)
        axes.set(title=LOGGED[key], xlabel="step", yscale="log")
        axes.legend(fontsize=8, **BELOW)
    return figure


DECADES = 12  # decades of power drawn below the truth's largest value


@matplotlib.rc_context(STYLE)
def rollout_figure(records: Sequence[Record]) -> Figure:
    """Draw each system's error against the steps of its rollouts: mean over the fields, each field, and persistence."""
    records = [record for record in records if record.is_rollout]
    systems = list(dict.fromkeys(record.system for record in records))
    figure, panels = _panels(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        curves: dict[tuple[str, str], list[Record]] = {}
        for record in (record for record in records if record.system == system):
            curves.setdefault((record.field, record.kind), []).append(record)
        kinds = [kind for field, kind in curves if field == ALL_FIELDS]
        _draw_curves(axes, system, {label_of(kind): curves[ALL_FIELDS, kind] for kind in kinds})
        names = [name for name, kind in curves if name != ALL_FIELDS and kind == kinds[0]]
        for colour, name in zip(COLOURS[len(kinds) :], names if len(names) > 1 else [], strict=False):
            leads = [r.lead for r in curves[name, kinds[0]]]
            label = f"{label_of(kinds[0])}, {words(name)} (dashed: persistence)"
            axes.plot(leads, [r.vrmse for r in curves[name, kinds[0]]], color=colour, linewidth=1, label=label)
            axes.plot(leads, [r.persistence_vrmse for r in curves[name, kinds[0]]], "--", color=colour, linewidth=0.8)
        _finish(axes)
    return figure


@matplotlib.rc_context(STYLE)
def compared_figure(names: Sequence[str], records_by_model: Sequence[Sequence[Record]]) -> Figure:
    """Draw each system's error against the steps of one kind of rollout, a curve for each model, and persistence."""
    systems = list(dict.fromkeys(record.system for records in records_by_model for record in records))
    figure, panels = _panels(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        shown = system, ALL_FIELDS, "rollout"
        of_models = ([r for r in own if (r.system, r.field, r.kind) == shown] for own in records_by_model)
        _draw_curves(axes, system, dict(zip(map(literal, names), of_models, strict=True)))
        _finish(axes)
    return figure


def _draw_curves(axes: Axes, system: str, curves: Mapping[str, Sequence[Record]]) -> None:
    """Draw a system's errors by the names of the curves, and persistence's; a peer of another system has none."""
    known = next(own for own in curves.values() if own)
    persistence = [r.persistence_vrmse for r in known]
    axes.plot([r.lead for r in known], persistence, "o--", color=PERSISTENCE, ms=3, label="persistence")
    for colour, (name, own) in zip(itertools.cycle(COLOURS), curves.items()):
        if own:
            axes.plot([r.lead for r in own], [r.vrmse for r in own], "o-", color=colour, ms=4, label=name)
    axes.set_title(literal(system))


@matplotlib.rc_context(STYLE)
def spectra_figure(spectra: Sequence[Spectra]) -> Figure:
    """Draw the power spectra of truth, forecasts and errors of one system, a panel per field."""
    names = spectra[0].fields
    figure, panels = _panels(len(names))
    for row, (axes, name) in enumerate(zip(panels, names, strict=True)):
        truth = spectra[0].truth[row].numpy()
        axes.plot(spectra[0].wavenumbers, truth, color="black", label="truth")
        for colour, own in zip(itertools.cycle(COLOURS), spectra):
            for power, style, what in ((own.forecast[row], "-", ""), (own.error[row], ":", "error of ")):
                shown = np.where(torch.isfinite(power), power, np.nan)  # a rollout that blew up has no finite power
                axes.plot(own.wavenumbers, shown, style, color=colour, label=f"{what}{label_of(own.kind)}")
        axes.set(title=words(name), xlabel="cycles per unit of length", ylabel="power", xscale="log", yscale="log")
        axes.xaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten would overlap
        largest = truth.max(initial=0)
        if largest > 0:
            axes.set_ylim(bottom=max(axes.get_ylim()[0], largest * 10.0**-DECADES))
    panels[0].legend(fontsize=8, **BELOW)
    return figure


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``number`` panels, two per row."""
    num_columns = min(2, number)
    num_rows = -(-number // num_columns)
    figure = Figure(figsize=(max(8, 5 * num_columns), 3.6 * num_rows), layout="constrained")
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes in panels[number:]:
        axes.set_visible(False)
    return figure, panels[:number]


def label_of(kind: str) -> str:
    """Return the name of a kind of rollout in a legend."""
    return kind.replace("rollout", "MATEY")


def _finish(axes: Axes) -> None:
    """Label the axes of a panel with all its curves; errors grow by decades over a rollout."""
    axes.set(xlabel="snapshots rolled out", ylabel="VRMSE (error over the field's deviation)", yscale="log")
    axes.locator_params("x", integer=True)
    axes.legend(fontsize=8, **BELOW)


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
        # Times of single precision are given by as few digits as tell them apart: 0.3, not 0.3000000119.
        single = np.float32(view.time)
        time = np.format_float_positional(single, trim="-") if single == view.time else f"{view.time:.10g}"
        self.figure.suptitle(f"{view.step} snapshots ahead, time {time} {self._clock}", fontsize=11)

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


class _GifWriter(PillowWriter):
    """Writes a GIF with one palette that covers the colours of its first picture evenly, so that colour bars keep theirs."""

    _frames: list[Image]

    def finish(self) -> None:
        palette = self._frames[0].quantize(method=Quantize.MAXCOVERAGE)
        self._frames = [frame.quantize(palette=palette, dither=Dither.NONE) for frame in self._frames]
        super().finish()


def _writer(path: Path, rate: int) -> AbstractMovieWriter:
    if path.suffix == ".gif":
        return _GifWriter(fps=rate)
    matplotlib.rcParams["animation.ffmpeg_path"] = ffmpeg()
    # Players need even numbers of pixels.
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
    return FFMpegWriter(fps=rate, codec="libx264", extra_args=even)
