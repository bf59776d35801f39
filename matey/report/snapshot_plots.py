"""Draws a picture of a rollout: forecasts with the model's mesh of tokens, above the truth."""

from __future__ import annotations

import matplotlib
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from torch import Tensor

from matey.evaluate.shown_rollouts import ShownRollout
from matey.metrics import nrmse
from matey.report.plots import PICTURE_STYLE, height_over_width, patches_in_plane, plane, show_field, words

MESH_COLOUR = (1, 1, 1, 0.75)


@matplotlib.rc_context(PICTURE_STYLE)
def snapshots_figure(shown: ShownRollout) -> Figure:
    """Draw a column for each view, the last known frame first, with the truth's colour scale."""
    grid = shown.views[0].forecast.shape
    height = 2 * 8.7 / len(shown.views) * height_over_width(grid, shown.spacing) + 0.6
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(2, len(shown.views), squeeze=False)
    truths = [view.truth for view in shown.views if view.truth is not None]
    low, high = min(plane(truth).min() for truth in truths), max(plane(truth).max() for truth in truths)
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
    """Return the NRMSE of each view's forecast, and that of persistence, the known first view."""

    def error(forecast: Tensor, truth: Tensor) -> float:
        return nrmse(forecast[None, None], truth[None, None]).item()

    known = shown.views[0].forecast
    return [(error(v.forecast, v.truth), error(known, v.truth)) for v in shown.views if v.truth is not None]
