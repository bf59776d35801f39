"""The pages of an evaluation, one HTML file each: how good a model is and where it fails, and several models compared.

Pages are filled in from templates, load nothing from outside, and escape all text.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from matey.checkpoints.run_files import replace_text
from matey.checkpoints.trained import Trained, TrainedPeer
from matey.evaluate.evaluation import Evaluation, Example, Protocol
from matey.evaluate.held_out import HeldOut
from matey.metrics import METRICS
from matey.model.configuration import MateyConfig
from matey.report import plots, tables
from matey.report.pictures import to_png
from matey.report.plots import film_of, patch_text
from matey.tokens.patches import padding_note

PAGES = Environment(
    loader=PackageLoader("matey.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def embedded(picture: bytes) -> str:
    """Return the address by which a page holds a picture, a PNG or an animated GIF."""
    kind = "gif" if picture.startswith(b"GIF") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def by_system(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Return items by the name of their system, in the order in which the systems first appear."""
    return {
        system: [each for each in items if each.system == system] for system in dict.fromkeys(x.system for x in items)
    }


PAGES.filters.update(by_system=by_system, embedded=embedded, png=to_png)


def page(template: str, title: str, **values: Any) -> str:  # noqa: ANN401 (whatever the template shows)
    """Return a whole HTML document from a template in ``templates/``, with a list of its contents above its first chapter."""
    head, *chapters = PAGES.get_template(template).render(title=title, **values).split("<h2>")
    titles = [chapter.partition("</h2>")[0] for chapter in chapters]
    links = [f'<a href="#part-{number}">{title}</a>' for number, title in enumerate(titles)]
    parts = [f'<h2 id="part-{number}">{chapter}' for number, chapter in enumerate(chapters)]
    return "".join([head, f"<nav>{' '.join(links)}</nav>\n" if links else "", *parts])


PAGES.globals.update(film_of=film_of, plots=plots, tables=tables)


def write_report(path: Path, evaluation: Evaluation, about: About) -> None:
    """Write the report, which can be read without other files and without a network."""
    record = evaluation.records[0]
    example = "Of a forecast that left all bounds there is no number: it diverged."
    if math.isfinite(record.nrmse):
        error = tables.error_text(record.nrmse)
        example = f"{error} is an error of {record.nrmse:.2g} of the field's size, or {100 * record.nrmse:.2g} %."
    text = page(
        "evaluation.html",
        f"{about.name} - MATEY",
        about=about,
        evaluation=evaluation,
        example=example,
        metrics={name: METRICS[name] for name in record.errors if name in METRICS},
        training=_training(about.log),
        worst=sorted(evaluation.worst, key=_over_persistence, reverse=True),
    )
    replace_text(path, text)


def write_comparison(
    path: Path,
    names: Sequence[str],
    evaluations: Sequence[Evaluation],
    facts: Sequence[tuple[str, str]],
    pages: Sequence[str],
) -> None:
    """Write the page of a comparison.

    Args:
        path: path of the page.
        names: names of the models.
        evaluations: results of each model on the same windows.
        facts: pairs of a term and its description, on the data and the command.
        pages: path of each model's own page, relative to this page's folder.
    """
    worst = [(name, example) for name, of in zip(names, evaluations, strict=True) for example in of.worst]
    about = {"names": names, "evaluations": evaluations, "facts": facts, "worst": worst}
    links = list(zip(names, pages, strict=True))
    path.write_text(page("comparison.html", f"{' and '.join(names)} - MATEY", **about, pages=links), encoding="utf-8")


def _over_persistence(example: Example) -> float:
    last, target = example.batch.last[0], example.batch.known_target[0]
    return float((example.prediction - target).norm() / (last - target).norm().clamp_min(1e-30))


def _training(log: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return facts about the training, none without a log of it."""
    steps = [line for line in log if "loss" in line]
    if not steps:
        return {}
    seconds = sum(line.get("seconds", 0) for line in steps)
    facts = {"steps": str(steps[-1]["step"]), "loss at the end": tables.error_text(steps[-1]["loss"])}
    if seconds:
        facts["tokens per second"] = f"{sum(line.get('num_tokens', 0) for line in steps) / seconds:,.0f}"
    if memory := max(line.get("peak_memory_bytes") or 0 for line in steps):
        facts["peak memory"] = f"{memory / 2**30:.2f} GiB"
    return facts


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
