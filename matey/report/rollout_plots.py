"""Figures of rollouts: error against the steps, and power spectra at the last step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.records import Record
from matey.evaluate.spectra import Spectra
from matey.report.literal import literal
from matey.report.plots import BELOW, COLOURS, PERSISTENCE, STYLE, words

DECADES = 12  # decades of power drawn below the truth's largest value


@matplotlib.rc_context(STYLE)
def rollout_figure(records: Sequence[Record]) -> Figure:
    """Draw each system's error against the steps of its rollouts: mean over the fields, each field, and persistence."""
    records = [record for record in records if record.is_rollout]
    systems = list(dict.fromkeys(record.system for record in records))
    figure, panels = _panels(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        _draw_rollouts(axes, [record for record in records if record.system == system])
        axes.set_title(literal(system))
    return figure


@matplotlib.rc_context(STYLE)
def compared_figure(names: Sequence[str], records_by_model: Sequence[Sequence[Record]]) -> Figure:
    """Draw each system's error against the steps of one kind of rollout, a curve for each model, and persistence."""
    systems = list(dict.fromkeys(record.system for records in records_by_model for record in records))
    figure, panels = _panels(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        curves = [
            [r for r in records if (r.system, r.field, r.kind) == (system, ALL_FIELDS, "rollout")]
            for records in records_by_model
        ]
        known = next(own for own in curves if own)
        persistence = [r.persistence_nrmse for r in known]
        axes.plot([r.lead for r in known], persistence, "o--", color=PERSISTENCE, ms=3, label="persistence")
        for colour, name, own in zip(itertools.cycle(COLOURS), names, curves):
            if own:  # a peer has records of one system only
                axes.plot([r.lead for r in own], [r.nrmse for r in own], "o-", color=colour, ms=4, label=literal(name))
        _finish(axes, [record for own in curves for record in own], max(persistence))
        axes.set_title(literal(system))
    return figure


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


def _draw_rollouts(axes: Axes, records: Sequence[Record]) -> None:
    overall = [record for record in records if record.field == ALL_FIELDS]
    kinds = list(dict.fromkeys(record.kind for record in overall))
    first = [record for record in overall if record.kind == kinds[0]]
    persistence = [record.persistence_nrmse for record in first]
    axes.plot([r.lead for r in first], persistence, "o--", color=PERSISTENCE, ms=3, label="persistence")
    for colour, kind in zip(itertools.cycle(COLOURS), kinds):
        own = [record for record in overall if record.kind == kind]
        axes.plot([r.lead for r in own], [r.nrmse for r in own], "o-", color=colour, ms=4, label=label_of(kind))
    names = [name for name in dict.fromkeys(record.field for record in records) if name != ALL_FIELDS]
    for colour, name in zip(COLOURS[len(kinds) :], names if len(names) > 1 else [], strict=False):
        own = [record for record in records if (record.field, record.kind) == (name, kinds[0])]
        leads = [r.lead for r in own]
        label = f"{label_of(kinds[0])}, {words(name)} (dashed: persistence)"
        axes.plot(leads, [r.nrmse for r in own], color=colour, linewidth=1, label=label)
        axes.plot(leads, [r.persistence_nrmse for r in own], "--", color=colour, linewidth=0.8)
    _finish(axes, records, max(persistence))


def _finish(axes: Axes, records: Sequence[Record], persistence: float) -> None:
    """Label the axes of a panel with all its curves."""
    # A rollout that blows up would squeeze all other curves against the axis. All curves must be drawn before this.
    if all(record.nrmse <= 10 * persistence for record in records):
        axes.set_ylim(0, None)
    else:
        axes.set_yscale("log")
    axes.set(xlabel="snapshots rolled out", ylabel="NRMSE")
    axes.locator_params("x", integer=True)
    axes.legend(fontsize=8, **BELOW)
