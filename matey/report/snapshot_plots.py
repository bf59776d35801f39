"""A picture of a rollout: forecasts under the model's mesh of tokens, above the truth."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from matey.evaluate.snapshots import Snapshot
from matey.report.plots import PICTURE_STYLE, height_over_width, patches_in_plane, plane, show_field, words

MESH_COLOUR = (1, 1, 1, 0.75)


@matplotlib.rc_context(PICTURE_STYLE)
def snapshots_figure(snapshots: Sequence[Snapshot], field: int = 0) -> Figure:
    """Draw one field, a column for each snapshot, all in the colours of the truth's range.

    Args:
        snapshots: the last known frame first.
        field: index of the field along axis ``f``.
    """
    grid, spacing = snapshots[0].truth.shape[1:], snapshots[0].spacing
    height = 2 * 8.7 / len(snapshots) * height_over_width(grid, spacing) + 0.6
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(2, len(snapshots), squeeze=False)
    planes = [(plane(snapshot.forecast[field]), plane(snapshot.truth[field])) for snapshot in snapshots]
    low, high = min(truth.min() for _, truth in planes), max(truth.max() for _, truth in planes)
    for snapshot, column, (forecast, truth) in zip(snapshots, panels.T, planes, strict=True):
        for axes, values in zip(column, (forecast, truth), strict=True):
            image = show_field(axes, values, spacing, "viridis", low, high)
            axes.set(xticks=[], yticks=[])
        mesh = patches_in_plane(snapshot.layout, grid, spacing)
        column[0].add_collection(PatchCollection(mesh, facecolor="none", edgecolor=MESH_COLOUR, linewidth=0.9))
        when = f"{snapshot.step} snapshots later" if snapshot.step else "last known frame"
        column[0].set_title(f"{when}: {snapshot.layout.num_tokens} tokens")
        if snapshot.step:
            column[1].set_xlabel(f"error {snapshot.error:.1%}, persistence {snapshot.persistence:.0%}")
    panels[0, 0].set_ylabel("forecast, mesh of tokens")
    panels[1, 0].set_ylabel("truth")
    bar = figure.colorbar(image, ax=panels[:, -1].tolist(), shrink=0.9, aspect=40, pad=0.04)
    bar.set_label(words(snapshots[0].fields[field]))
    bar.outline.set_visible(False)
    return figure
