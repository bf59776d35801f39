"""Figures of an evaluation: curves of training and rollout, fields beside each other, the mesh of tokens over a field."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from matey.evaluate.examples import Example
from matey.evaluate.records import ALL_FIELDS, Record

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PERSISTENCE = "#7A7A7A"
STYLE = {
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
DOTS_PER_INCH = 160


def to_png(figure: Figure) -> bytes:
    """Render a figure, without any display."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


@matplotlib.rc_context(STYLE)
def training_figure(log: Sequence[dict[str, Any]]) -> Figure:
    """Draw the loss of every logged step and the validation's NRMSE, over all systems and by system."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    _draw_log(left, [line for line in log if "loss" in line], "loss", smooth=True)
    left.set(title="training loss", xlabel="step", yscale="log")
    validations = [line for line in log if "valid_nrmse" in line]
    _draw_log(right, validations, "valid_nrmse", smooth=False)
    if validations and "valid_persistence_by_system" in validations[-1]:
        for colour, error in zip(COLOURS, validations[-1]["valid_persistence_by_system"].values(), strict=False):
            right.axhline(error, color=colour, linestyle=(0, (4, 3)), linewidth=1)
    right.set(title="NRMSE on validation trajectories (dashed: persistence)", xlabel="step", yscale="log")
    for axes in (left, right):
        axes.legend(fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def rollout_figure(records: Sequence[Record]) -> Figure:
    """Draw each system's error over the steps of a rollout: mean over the fields, each field, and persistence."""
    systems = list(dict.fromkeys(record.system for record in records if record.kind == "rollout"))
    figure = Figure(figsize=(min(10, 5 * len(systems)), 3.4), layout="constrained")
    for axes, system in zip(np.atleast_1d(figure.subplots(1, len(systems))), systems, strict=True):
        own = [record for record in records if record.kind == "rollout" and record.system == system]
        names = [name for name in dict.fromkeys(record.field for record in own) if name != ALL_FIELDS]
        overall = [record for record in own if record.field == ALL_FIELDS]
        steps = [record.lead for record in overall]
        axes.plot(
            steps,
            [r.persistence_nrmse for r in overall],
            "--",
            color=PERSISTENCE,
            label="persistence",
            marker="o",
            ms=3,
        )
        axes.plot(steps, [r.nrmse for r in overall], color=COLOURS[0], label="MATEY", marker="o", ms=4)
        for colour, name in zip(COLOURS[1:], names if len(names) > 1 else [], strict=False):
            errors = [record.nrmse for record in own if record.field == name]
            axes.plot(steps, errors, color=colour, linewidth=1, label=f"MATEY, {_words(name)}")
        axes.set(title=system, xlabel="snapshots rolled out", ylabel="NRMSE", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
    return figure


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def forecast_figure(example: Example) -> Figure:
    """Draw, for each field, the last known frame, the truth, the prediction and its error."""
    num_fields = len(example.fields)
    figure = Figure(figsize=(10, 2.35 * num_fields + 0.25), layout="constrained")
    grid = figure.subplots(num_fields, 4, squeeze=False, sharex=True, sharey=True)
    titles = ("last known frame", f"truth, {example.lead} later", "prediction", "prediction - truth")
    for row, name in enumerate(example.fields):
        last, target, prediction = (plane(f[row]) for f in (example.last, example.target, example.prediction))
        error = prediction - target
        low, high = target.min(), target.max()
        largest = float(np.abs(error).max()) or 1.0
        shown = [(last, "viridis", low, high), (target, "viridis", low, high), (prediction, "viridis", low, high)]
        for axes, (field, colours, lowest, highest) in zip(
            grid[row], [*shown, (error, "RdBu_r", -largest, largest)], strict=True
        ):
            image = show_field(axes, field, example, colours, lowest, highest)
            if axes in (grid[row, 2], grid[row, 3]):
                _add_colour_bar(figure, image, axes)
        grid[row, 0].set_ylabel(_with_unit(name, example.units[row]) + "\n\ny")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes in grid[-1]:
        axes.set_xlabel("x")
    return figure


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def mesh_figure(examples: Sequence[Example]) -> Figure:
    """Draw the patches of the last frame's tokens over the first field, for examples of one system."""
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    for axes, example in zip(figure.subplots(1, len(examples), squeeze=False)[0], examples, strict=True):
        field = plane(example.last[0])
        show_field(axes, field, example, "Greys_r", field.min(), field.max())
        for level in example.tokens_per_level:
            outlines = [Rectangle(corner, *size) for corner, size in _patches_in_plane(example, level)]
            colour = COLOURS[(4, 5, 3, 2)[level % 4]]
            axes.add_collection(PatchCollection(outlines, facecolor="none", edgecolor=colour, linewidth=0.9))
        axes.set_title(f"frame {example.frame}: {example.layout.num_tokens} of {example.num_uniform_tokens} tokens")
        axes.set_xlabel("x")
    return figure


def plane(field: Tensor) -> np.ndarray:
    """Return the ``(y, x)`` plane of a field ``(z, y, x)`` that is drawn: the middle one."""
    return field[field.shape[0] // 2].numpy()


def show_field(axes: Axes, field: np.ndarray, example: Example, colours: str, low: float, high: float) -> AxesImage:
    """Draw a plane ``(y, x)`` with x to the right and y upwards."""
    _, dy, dx = example.spacing
    height, width = field.shape
    image = axes.imshow(
        field, cmap=colours, vmin=low, vmax=high, origin="lower", extent=(0, width * dx, 0, height * dy)
    )
    axes.tick_params(labelsize=7, length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _patches_in_plane(example: Example, level: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lower left corner and size of the patches of the last frame at ``level`` that cut the plane that is drawn."""
    layout = example.layout
    own = layout.select(layout.is_last & (layout.level == level))
    num_z, num_y, num_x = example.last.shape[1:]
    middle = (num_z // 2 + 0.5) / num_z
    domain = (num_x * example.spacing[2], num_y * example.spacing[1])
    patches = []
    for (_, z, y, x), (_, depth, height, width) in zip(own.centre.tolist(), own.extent.tolist(), strict=True):
        if abs(z - middle) < depth / 2:
            corner = ((x - width / 2) * domain[0], (y - height / 2) * domain[1])
            patches.append((corner, (width * domain[0], height * domain[1])))
    return patches


def _draw_log(axes: Axes, lines: Sequence[dict[str, Any]], key: str, *, smooth: bool) -> None:
    """Draw a number of the log and, where there are several systems, the same by system."""
    systems = list(lines[-1].get(f"{key}_by_system", {})) if lines else []
    series = {system: [(line["step"], line[f"{key}_by_system"].get(system)) for line in lines] for system in systems}
    if len(systems) != 1:
        series["all systems"] = [(line["step"], line[key]) for line in lines]
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[-1] if name == "all systems" else COLOURS[index % (len(COLOURS) - 1)]
        known = [(step, value) for step, value in points if value is not None]
        steps, values = np.array(known, dtype=float).reshape(-1, 2).T
        if smooth:
            axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.25)
            values = _smooth(values)
        axes.plot(steps, values, color=colour, label=name, marker=None if smooth else "o", ms=3)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window of a fiftieth of the curve, on a logarithmic scale, shorter at the ends."""
    half = max(1, len(values) // 100)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.exp([logs[max(0, i - half) : i + half + 1].mean() for i in range(len(logs))])


def _add_colour_bar(figure: Figure, image: AxesImage, axes: Axes) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    bar.formatter.set_powerlimits((-3, 4))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _with_unit(name: str, unit: str) -> str:
    return _words(name) if unit in ("", "1") else f"{_words(name)} [{unit}]"
