"""The report of an evaluation: one HTML file that shows how good the model is, and where it fails."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matey.checkpoints.durable import replace_text
from matey.checkpoints.peer_folder import TrainedPeer
from matey.checkpoints.trained import Trained
from matey.evaluate.evaluation import Evaluation, Protocol
from matey.evaluate.forecaster import Example
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import Record
from matey.evaluate.rollout import ShownRollout
from matey.metrics import METRICS
from matey.model.configuration import MateyConfig
from matey.report import plots
from matey.report.film import film_of
from matey.report.page import definitions, figure, folded, heading, page, paragraph, table
from matey.report.pictures import to_png
from matey.report.plots import patch_text
from matey.report.tables import (
    baseline_cells,
    beyond_section,
    cost_cells,
    error_text,
    forecast_text,
    physics_section,
    ratio_text,
    seams_text,
    spread_cells,
    summary_records,
    worth_text,
)
from matey.tokens.patches import padding_note

MOST_BYTES = 10**7
"""Largest size of a page in bytes, so that it can be sent; if pictures compress badly, films have fewer of them."""

SPREAD = ("best trajectory", "worst trajectory", "which")


def write_report(path: Path, evaluation: Evaluation, about: About) -> None:
    """Write the report, which can be read without other files and without a network."""
    before = [
        heading(1, about.name),
        paragraph("MATEY: forecasts of spatiotemporal physics beside the truth", "soft"),
        definitions(about.facts),
        *_summary(evaluation.records),
        *_spread(evaluation),
    ]
    after = [
        *_rollouts(evaluation),
        *physics_section([about.label], [evaluation.records]),
        *beyond_section([about.label], [evaluation.beyond] if evaluation.beyond else []),
        *_forecasts(evaluation.examples),
        *_meshes([example for example in evaluation.examples if example.layout is not None]),
        *_costs(evaluation),
        *_training(about.log),
        *_records(evaluation.records),
    ]
    title = f"{about.name} - MATEY"
    room = MOST_BYTES - len(page(title, [*before, *after]).encode())
    replace_text(path, page(title, [*before, *_films(evaluation.shown_rollouts, room), *after]))


def _summary(records: Sequence[Record]) -> list[str]:
    head = ("system", "forecast", *_heads(records))
    rows = [(record.system, forecast_text(record), *_errors(record)) for record in summary_records(records)]
    return [
        heading(2, "Errors"),
        paragraph(
            "Mean over the fields and over windows spread evenly over the trajectories. Persistence is the last known "
            "frame again; a ratio below 1 is better than that. Extrapolation lets every cell go on changing as between the "
            "last two frames. A forecast at a lead is made at once, a rollout goes there over the model's own predictions: in "
            "steps of one snapshot or, where it says by N, from every N-th frame, with those in between predicted from "
            "the same histories."
        ),
        table(head, rows, num_text=2, best=5),
        heading(3, "How to read these numbers"),
        definitions(_meanings(records[0])),
    ]


def _meanings(record: Record) -> list[tuple[str, str]]:
    """Explain the numbers of the table with one record as an example."""
    if math.isfinite(record.nrmse):
        example = (
            f"{error_text(record.nrmse)} is an error of {record.nrmse:.2g} of the field's size, or {record.nrmse:.2%}."
        )
    else:
        example = "Of a forecast that left all bounds there is no number: it diverged."
    return [
        (METRICS["nrmse"].label, f"{METRICS['nrmse'].meaning} {example}"),
        (
            "of persistence",
            "The same error for the last known frame shown again: what somebody would have who knows no physics at all.",
        ),
        (
            "of extrapolation",
            "The same for a straight line through the last two frames in every cell: hard to beat at lead 1.",
        ),
        (
            "ratio",
            "The first over the second: 1 is no better than the last frame, 0.1 is a tenth of its error.",
        ),
        (
            "tokens' worth",
            "NRMSE with what tokens contribute at zero over that with it: 1 is nothing, 2 twice the error without them.",
        ),
        *((METRICS[name].label, METRICS[name].meaning) for name in _others(record) if name in METRICS),
        (
            "seams",
            "Mean jump of the error between neighbouring cells across the borders of patches over that inside them: 1 shows no "
            "patches, 2 shows them.",
        ),
        ("windows", "Number of forecasts that the means are taken over."),
    ]


def _rollouts(evaluation: Evaluation) -> list[str]:
    if not any(record.is_rollout for record in evaluation.records):
        return []
    png = to_png(plots.rollout_figure(evaluation.records))
    parts = [heading(2, "Rollouts"), figure(png, "Error after each step over the model's own predictions.")]
    for system in dict.fromkeys(spectra.system for spectra in evaluation.spectra):
        own = [spectra for spectra in evaluation.spectra if spectra.system == system]
        caption = (
            f"Power of each field by wavenumber after {own[0].lead} snapshots, mean over directions and windows. Dotted: of "
            "the error, which is as large as the truth at scales of which the forecast knows nothing any more."
        )
        parts += [heading(3, system), figure(to_png(plots.spectra_figure(own)), caption)]
    return parts


def _spread(evaluation: Evaluation) -> list[str]:
    """Show how errors differ between trajectories, and the worst trajectory."""
    known = [record for record in summary_records(evaluation.records) if record.worst]
    if not known:
        return []
    rows = [(record.system, forecast_text(record), error_text(record.nrmse), *spread_cells(record)) for record in known]
    parts = [
        heading(2, "From trajectory to trajectory"),
        paragraph(
            "NRMSE, the mean over the windows of each trajectory: where it is smallest, and where it is largest."
        ),
        table(("system", "forecast", "all", *SPREAD), rows, num_text=2),
    ]
    for example in sorted(evaluation.worst, key=_over_persistence, reverse=True):
        caption = f"The largest error at lead {example.lead}: {example.trajectory}, from frame {example.frame}."
        parts += [heading(3, f"{example.system}, worst case"), figure(to_png(plots.forecast_figure(example)), caption)]
    return parts


def _over_persistence(example: Example) -> float:
    return _size(example.prediction - example.target) / max(_size(example.last - example.target), 1e-30)


def _size(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def _films(rollouts: Sequence[ShownRollout], room: int) -> list[str]:
    """Show rollouts in at most ``room`` bytes, if films of a single picture fit."""
    parts = [heading(2, "Rollouts, step by step")] if rollouts else []
    most = int(0.7 * room / max(1, len(rollouts)))  # base64 needs four letters for three bytes; the rest is for words
    for rollout in rollouts:
        mesh = ", and the mesh of tokens that the model chooses anew for each step"
        caption = (
            f"The {plots.words(rollout.field)} of {rollout.trajectory} over {rollout.views[-1].step} snapshots: truth, "
            f"forecast, error{'' if rollout.views[0].layout is None else mesh}."
        )
        parts += [heading(3, rollout.system), figure(film_of(rollout, most), caption, "gif")]
    return parts


def _forecasts(examples: Sequence[Example]) -> list[str]:
    parts = [heading(2, "Forecasts")] if examples else []
    for own in _by_system(examples):
        example = own[len(own) // 2]
        caption = (
            f"From frame {example.frame} of {example.trajectory}, to {example.lead} snapshots later (a time of "
            f"{example.lead * example.time_step:.3g}). One colour scale for the first three pictures; the error has a "
            "scale of its own, white where it vanishes."
        )
        if example.last.shape[1] > 1:
            caption += " The middle planes across z, y and x are shown."
        parts += [heading(3, example.system), figure(to_png(plots.forecast_figure(example)), caption)]
    return parts


def _meshes(examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    parts = [
        heading(2, "Adaptive mesh"),
        paragraph(
            "Patches of the last known frame, drawn over its first field, at the beginning, the middle and the end of "
            "a trajectory. Each outline is a token; the same patches cut every frame of the history."
        ),
    ]
    for own in _by_system(examples):
        patches = [f"patch {patch_text(patch)}" for patch in own[0].patches]
        head = ("last known frame", *patches, "tokens", "uniform fine grid", "share")
        rows = [
            (
                str(example.frame),
                *(str(count) for count in example.tokens_per_level),
                str(sum(example.tokens_per_level)),
                str(example.num_uniform_tokens),
                f"{sum(example.tokens_per_level) / example.num_uniform_tokens:.0%}",
            )
            for example in own
        ]
        caption = f"{own[0].trajectory}. The tokens counted are those of the whole history."
        png = to_png(plots.mesh_figure(own))
        parts += [heading(3, own[0].system), figure(png, caption), table(head, rows)]
    return parts


def _costs(evaluation: Evaluation) -> list[str]:
    rows = [(cost.system, *cost_cells(cost), str(cost.num_forecasts)) for cost in evaluation.costs]
    head = ("system", "tokens per sample", "uniform fine grid", "share", "time per forecast", "forecasts")
    return [
        heading(2, "Tokens and time"),
        table(head, rows),
        paragraph(
            "Time is the median over batches of the time per sample, from the history in main memory to the prediction "
            "there, as it was on this machine then: what else runs there makes it longer (the head of this page has the load). "
            "Compare times of quiet machines, and tokens anywhere.",
            "soft",
        ),
    ]


def _training(log: Sequence[dict[str, Any]]) -> list[str]:
    steps = [line for line in log if "loss" in line]
    if not steps:
        return []
    seconds = sum(line.get("seconds", 0) for line in steps)
    facts = {"steps": str(steps[-1]["step"]), "loss at the end": error_text(steps[-1]["loss"])}
    if seconds:
        facts["tokens per second"] = f"{sum(line.get('num_tokens', 0) for line in steps) / seconds:,.0f}"
    memory = max(line.get("peak_memory_bytes") or 0 for line in steps)
    if memory:
        facts["peak memory"] = f"{memory / 2**30:.2f} GiB"
    caption = "Thin: every logged step; thick: its running mean."
    return [
        heading(2, "Training"),
        figure(to_png(plots.training_figure(log)), caption),
        definitions(list(facts.items())),
    ]


def _records(records: Sequence[Record]) -> list[str]:
    head = ("system", "field", "forecast", *_heads(records))
    rows = [(r.system, r.field, forecast_text(r), *_errors(r)) for r in records]
    content = table(head, rows, num_text=3, best=6)
    return [heading(2, "All numbers"), folded(f"{len(rows)} records, as in metrics.json", content)]


def _others(record: Record) -> list[str]:
    """Return the names of a record's metrics other than the first."""
    return [name for name in record.errors if name != "nrmse"]


def _heads(records: Sequence[Record]) -> tuple[str, ...]:
    others = [METRICS[name].label if name in METRICS else name for name in _others(records[0])]
    own = [head for label in others for head in (label, "of persistence")]
    return "NRMSE", "of persistence", "of extrapolation", "ratio", "tokens' worth", *own, "seams", "windows"


def _errors(record: Record) -> tuple[str, ...]:
    """Return the cells under `_heads`."""
    others = [error_text(errors[name]) for name in _others(record) for errors in (record.errors, record.persistence)]
    return (
        error_text(record.nrmse),
        *baseline_cells(record),
        ratio_text(record),
        worth_text(record),
        *others,
        seams_text(record),
        str(record.num_windows),
    )


def _by_system(examples: Sequence[Example]) -> list[list[Example]]:
    systems = dict.fromkeys(example.system for example in examples)
    return [[example for example in examples if example.system == system] for system in systems]


@dataclass(frozen=True)
class About:
    """The head of a report.

    Attributes:
        name: name of the run or the model.
        facts: pairs of a term and its description, in plain text.
        log: lines of the run's ``metrics.jsonl``; empty if there is none.
        label: name of the kind of model in tables.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    log: Sequence[dict[str, Any]] = field(default_factory=tuple)
    label: str = "MATEY"


def describe(trained: Trained | TrainedPeer, data: HeldOut, protocol: Protocol, date: str, command: str) -> About:
    """Describe the model, the data and the method of evaluation."""
    about = [("date", date), ("command", command)]
    context = describe_context(data, trained.model.device, protocol)
    history = ("history", f"{data.num_frames} frames")
    if isinstance(trained, TrainedPeer):
        size, facts = f"{trained.model.num_parameters:,} parameters", trained.facts
        about += [("model", f"{facts.kind}, compared with MATEY: {size}, for {facts.system} alone"), history]
        about.append(("training", f"leads of 1 to {facts.lead_max} snapshots"))
        return About(trained.name, [*about, *context], label=facts.kind)
    config = trained.model.config
    network = (
        f"{trained.model.num_parameters():,} parameters: {config.num_blocks} blocks of {config.scheme} attention, "
        f"{config.num_heads} heads, {config.width} wide; decodes the {config.predict}"
    )
    about += [("model", network), ("tokens", _tokens(config)), history]
    if trained.run is not None:
        training = f"{trained.run.train.steps} steps, leads of 1 to {trained.run.data.lead_max} snapshots"
        about.append(("training", training))
    for trajectory_set in data.sets:
        for grid in dict.fromkeys(trajectory.grid for trajectory in trajectory_set.trajectories):
            if note := padding_note(grid, config.patches[0]):
                about.append(("padding", f"{trajectory_set.system}: {note}"))
    return About(trained.name, [*about, *context], trained.log)


def describe_context(data: HeldOut, device: torch.device, protocol: Protocol) -> list[tuple[str, str]]:
    """Describe the facts that do not depend on the model: data and device."""
    facts = []
    for trajectory_set, trajectories in zip(data.sets, data.trajectories, strict=True):
        share = f"{data.part}, {len(trajectories)} of {trajectory_set.num_trajectories} trajectories"
        names = ", ".join(trajectory_set.fields)
        facts.append(("data", f"{trajectory_set.system} ({share}): {names}; {_files(trajectory_set.sources)}"))
    facts += [("note", note) for note in data.notes]
    return [*facts, ("device", f"{_device(device)}, up to {protocol.batch_size} samples at a time")]


def _tokens(config: MateyConfig) -> str:
    sizes = " to ".join(patch_text(patch) for patch in config.patches)
    if len(config.patches) == 1:
        return f"{config.tokens.set}, patches of {sizes}"
    return f"{config.tokens.set}, patches of {sizes}, split by {config.tokens.rule} {config.tokens.refine:g}"


def _files(sources: Sequence[Path]) -> str:
    """Name files relative to the working folder, others by the end of the path only, because pages are passed on to others."""
    first = sources[0].resolve()
    near = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else Path("...", *first.parts[-2:])
    return str(near) if len(sources) == 1 else f"{len(sources)} files such as {near}"


def _device(device: torch.device) -> str:
    if device.type != "cpu":
        return str(device)
    load = os.getloadavg()[0]
    return f"{device}, {torch.get_num_threads()} threads on {os.cpu_count()} cores with a load of {load:.1f} in the last minute"
