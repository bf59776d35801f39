"""The results of an evaluation, of one model or of several beside each other: as tables of text, and as HTML pages.

Pages are filled in from templates, load nothing from outside, and escape all text. Tables are the same in the terminal and on
pages; one of several models has a column for each, where a peer has a dash in the rows of other systems.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from matey import metrics
from matey.checkpoints.run_files import replace_text
from matey.checkpoints.trained import Trained, TrainedPeer
from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.evaluation import Cost, Evaluation, Example, Protocol, best_of, one_of, side_by_side
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import CORRELATION_TIME, LEAST_CORRELATION, PERSISTENCE, TRUTH, Record
from matey.evaluate.spectra import POWER
from matey.metrics import METRICS
from matey.model.configuration import MateyConfig
from matey.physics import measure
from matey.report import plots
from matey.report.pictures import to_png
from matey.report.plots import film_of, patch_text
from matey.text_table import text_table
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


def write_report(path: Path, evaluation: Evaluation, about: About) -> None:
    """Write the report, which can be read without other files and without a network."""
    record = evaluation.records[0]
    example = "Of a forecast that left all bounds there is no number: it diverged."
    if math.isfinite(record.vrmse):
        error = error_text(record.vrmse)
        example = f"{error} is an error of {record.vrmse:.2g} of the field's deviation, or {100 * record.vrmse:.2g} %."
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
    facts = {"steps": str(steps[-1]["step"]), "loss at the end": error_text(steps[-1]["loss"])}
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


class Table(NamedTuple):
    """A table of text.

    Attributes:
        head: titles of the columns.
        rows: rows, each as long as ``head``.
        num_text: number of columns, from the left, that hold words; the others hold numbers.
        best: index of the column to set off in each row; empty for none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_text: int = 1
    best: Sequence[int] = ()

    def text(self, merge: int = 0) -> str:
        """Return the table as plain text, with a star in the columns to set off; empty without rows."""
        if not self.rows:
            return ""
        if not self.best:
            return text_table(self.head, self.rows, self.num_text, merge)
        rows = [
            [
                *row[: self.num_text],
                *(f"{cell}{' *'[at == best]}" for at, cell in enumerate(row) if at >= self.num_text),
            ]
            for row, best in zip([self.head, *self.rows], [-1, *self.best], strict=True)
        ]
        return text_table(rows[0], rows[1:], self.num_text, merge)


READING = (
    "VRMSE: error over the deviation of the field, 1 is a forecast of its mean. NRMSE: over its size, 0.01 is 1 %.\n"
    "of last: of the last frame again, persistence. ratio: VRMSE over persistence's, below 1 is better. seams: jumps\n"
    "of the error at patch borders, 1 is none. tokens' worth: VRMSE without what tokens contribute over that with it,\n"
    "1 is nothing. docs/evaluation.md says more."
)
"""Legend of the numbers in `summary_text`."""

STAR = "VRMSE: error over the deviation of the field, 0.01 is 1 %. *: the smallest of its row. docs/evaluation.md says more."
"""Legend of the numbers in `comparison_text`."""


def summary_text(evaluation: Evaluation, label: str = "MATEY") -> str:
    """Format the results of one model as plain tables, with the kind of the model above its numbers."""
    chosen = summary_records(evaluation.records)
    head = (label, "", "VRMSE", "of last", "NRMSE", "of last", "ratio", "seams", "windows")
    errors = [
        (
            *about_of(r),
            *(error_text(errors[name]) for name in ("vrmse", "nrmse") for errors in (r.errors, r.persistence)),
            number(r.ratio, ".3f"),
            number(r.seams),
            f"{r.num_windows}",
        )
        for r in chosen
    ]
    with_tokens = [record for record in chosen if not math.isnan(record.tokens_worth)]
    worth = {about_of(record): number(record.tokens_worth) for record in with_tokens}
    systems, forecasts = (list(dict.fromkeys(about[place] for about in worth)) for place in (0, 1))
    of_systems = [(system, *(worth.get((system, forecast), "-") for forecast in forecasts)) for system in systems]
    tables = [
        Table(head, errors, 2).text(merge=1),
        poor_fields(evaluation.records, {(r.system, r.kind, r.lead) for r in chosen}),
        Table(("tokens' worth", *forecasts), of_systems).text(),
        costs_table(evaluation.costs)
        ._replace(head=("tokens per sample", label, "uniform fine", "share", "time"))
        .text(),
        physics_table([label], [evaluation]).text(merge=2),
    ]
    return "\n\n".join(filter(None, tables))


def poor_fields(records: Sequence[Record], chosen: Container[tuple[str, str, int]]) -> str:
    """Return a table of the fields that are forecast worse than by their mean or the last frame, which means may hide."""
    poor = [
        (*about_of(r), r.field, error_text(r.vrmse), error_text(r.persistence_vrmse))
        for r in records
        if (r.system, r.kind, r.lead) in chosen and r.field != ALL_FIELDS and r.vrmse > min(1, r.persistence_vrmse)
    ]
    return Table(("worse than mean or last frame", "", "", "VRMSE", "of last"), poor, 3).text(merge=1)


def comparison_text(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    """Format the results of several models on the same windows; a star marks the smallest error of a row."""
    tables = [
        compared_errors(names, evaluations).text(merge=1),
        compared_worst(names, evaluations).text(),
        compared_worth(names, evaluations).text(),
        compared_costs(names, evaluations).text(),
        physics_table(names, evaluations).text(merge=2),
    ]
    return "\n\n".join(filter(None, tables))


def summary_records(records: Sequence[Record]) -> list[Record]:
    """Select, per system, the mean over the fields at each lead and at the last step of each kind of rollout."""
    overall = [record for record in records if record.field == ALL_FIELDS]
    last = {(record.system, record.kind): record.lead for record in overall}
    chosen = [record for record in overall if not record.is_rollout or record.lead == last[record.system, record.kind]]
    systems = list(dict.fromkeys(record.system for record in records))
    return sorted(chosen, key=lambda record: (systems.index(record.system), record.kind, record.lead))


def forecast_text(record: Record) -> str:
    """Return the length and kind of a forecast: ``lead 5``, ``rollout 10`` or ``rollout 10 by 5``."""
    how, _, step = record.kind.partition(" by ")
    return f"{how} {record.lead} by {step}" if step else f"{how} {record.lead}"


def about_of(record: Record) -> tuple[str, str]:
    """Return a record's system and forecast."""
    return record.system, forecast_text(record)


def number(value: float, form: str = ".2f") -> str:
    """Format a number; one that is not finite is a dash."""
    return f"{value:{form}}" if math.isfinite(value) else "-"


def error_text(error: float) -> str:
    """Format an error, see `matey.metrics.error_text`; an error that is not finite means a forecast that blew up."""
    return metrics.error_text(error) if math.isfinite(error) else "diverged"


def baseline_cells(record: Record) -> tuple[str, str]:
    """Format the errors of persistence and of extrapolation."""
    return error_text(record.persistence_vrmse), error_text(record.extrapolation_vrmse)


def spread_cells(record: Record) -> tuple[str, str, str]:
    """Format the errors of the best and the worst trajectory, and the end of the worst one's path.

    The errors are dashes if the trajectories of windows were not recorded.
    """
    if not record.worst:
        return "-", "-", ""
    *_, name = record.worst.rpartition("/")
    return error_text(record.best_trajectory), error_text(record.worst_trajectory), name


def errors_table(records: Sequence[Record], by_field: bool = False) -> Table:
    """Return all errors of records; ``by_field``, with the names of their fields."""
    others = [name for name in records[0].errors if name != "vrmse"]
    labels = [METRICS[name].label if name in METRICS else name for name in others]
    head = ["system", *["field"] * by_field, "forecast", "VRMSE", "of persistence", "of extrapolation", "ratio"]
    head += ["tokens' worth", *(title for label in labels for title in (label, "of persistence")), "seams", "windows"]
    rows = [
        (
            *(r.system, *[r.field] * by_field, forecast_text(r), error_text(r.vrmse), *baseline_cells(r)),
            *(number(r.ratio, ".3f"), number(r.tokens_worth)),
            *(error_text(errors[name]) for name in others for errors in (r.errors, r.persistence)),
            *(number(r.seams), str(r.num_windows)),
        )
        for r in records
    ]
    return Table(head, rows, 2 + by_field, [head.index("ratio")] * len(rows))


def spread_table(records: Sequence[Record]) -> Table:
    """Return the errors of the best and of the worst trajectory; without rows if trajectories were not recorded."""
    known = [record for record in summary_records(records) if record.worst]
    rows = [(*about_of(record), error_text(record.vrmse), *spread_cells(record)) for record in known]
    return Table(("system", "forecast", "all", "best trajectory", "worst trajectory", "which"), rows, 2)


def costs_table(costs: Sequence[Cost]) -> Table:
    """Return the tokens, those of the uniform grid, their ratio, and the time; peers have no tokens."""
    rows = []
    for cost in costs:
        counts = (f"{cost.tokens:.1f}", f"{cost.uniform_tokens:.0f}", f"{cost.share:.1%}")
        time = f"{cost.seconds:.2f} s" if cost.seconds >= 1 else f"{1000 * cost.seconds:.3g} ms"
        rows.append((cost.system, *(("-",) * 3 if math.isnan(cost.tokens) else counts), time))
    return Table(("system", "tokens per sample", "uniform fine grid", "share", "time per forecast"), rows)


def mesh_table(examples: Sequence[Example]) -> Table:
    """Return the number of tokens of each level in examples of one system."""
    patches = [f"patch {patch_text(patch)}" for patch in examples[0].patches]
    rows = []
    for example in examples:
        counts, uniform = example.tokens_per_level, example.num_uniform_tokens
        rows.append([*map(str, (example.frame, *counts, sum(counts), uniform)), f"{sum(counts) / uniform:.0%}"])
    return Table(("last known frame", *patches, "tokens", "uniform fine grid", "share"), rows)


def by_model(
    title: str, names: Sequence[str], evaluations: Sequence[Evaluation], text: Callable[[Record], str]
) -> Table:
    """Return a text of each model's record of a forecast, for all forecasts of the summary."""
    rows = side_by_side([summary_records(evaluation.records) for evaluation in evaluations])
    cells = [(*about_of(one_of(row)), *("-" if record is None else text(record) for record in row)) for row in rows]
    return Table((title, "", *names), cells, 2)


def compared_errors(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    """Return the errors of all models beside those of the baselines, with the smallest set off."""
    rows = side_by_side([summary_records(evaluation.records) for evaluation in evaluations])
    errors = by_model("VRMSE", names, evaluations, lambda record: error_text(record.vrmse)).rows
    cells = [(*of_models, *baseline_cells(one_of(row))) for of_models, row in zip(errors, rows, strict=True)]
    best = [2 + best_of(row) for row in rows]
    return Table(("VRMSE", "", *names, "persistence", "extrapolation"), cells, 2, best)


def compared_worst(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    """Return the errors of all models on the worst trajectory."""
    return by_model("worst trajectory", names, evaluations, lambda record: spread_cells(record)[1])


def compared_worth(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    """Return the tokens' worth of all models."""
    return by_model("tokens' worth", names, evaluations, lambda record: number(record.tokens_worth))


def compared_costs(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    """Return the tokens per sample of all models."""
    of_models = [{row[0]: row[1] for row in costs_table(evaluation.costs).rows} for evaluation in evaluations]
    systems = dict.fromkeys(system for of_model in of_models for system in of_model)
    rows = [(system, *(of_model.get(system, "-") for of_model in of_models)) for system in systems]
    return Table(("tokens per sample", *names), rows)


LABELS = {CORRELATION_TIME: "correlation time"} | {name: name.replace("_", " of ") + " scales" for name in POWER}
CORRELATION_MEANING = (
    f"Snapshots after which the mean correlation of a rollout with the truth falls below {LEAST_CORRELATION:g}, along a "
    "straight line from one snapshot to the next; beside it, persistence's."
)
POWER_MEANING = (
    "Power of the forecast at the end of rollouts over the truth's, in a third of the wavenumbers, the geometric mean over the "
    "fields: below 1 the forecast is smoother than the truth."
)


def physics_table(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    """Return each model's physical quantities beside the truth's (for correlation times, persistence's).

    Rows are for the longest lead and the last step of every rollout, because errors in conserved quantities add up.
    """
    rows = []
    for records in side_by_side([_longest(evaluation.records) for evaluation in evaluations]):
        first = one_of(records)
        for name in (name for name in first.physics if not name.startswith((TRUTH, PERSISTENCE))):
            beside = PERSISTENCE if name == CORRELATION_TIME else TRUTH
            cells = [value_text(record, name) for record in records] + [value_text(first, beside + name)]
            rows.append((*about_of(first), label_of(name), *cells))
    return Table(("physics", "", "", *names, "truth"), rows, 3)


def physics_meanings(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Return the labels of the physical quantities in an evaluation with their meanings."""
    shown = dict.fromkeys(name for each in evaluations for record in _longest(each.records) for name in record.physics)
    meanings = {CORRELATION_TIME: CORRELATION_MEANING} | dict.fromkeys(POWER, POWER_MEANING)
    meanings |= {name: found.meaning for name in shown if (found := measure(name))}
    return [(label_of(name), meanings[name]) for name in shown if name in meanings]


def label_of(name: str) -> str:
    """Return a quantity's name in tables."""
    found = measure(name)
    return LABELS.get(name) or (found.label if found else name)


def value_text(record: Record | None, name: str) -> str:
    """Format a quantity with three digits; a correlation time beyond the rollout's end is shown as longer than the rollout."""
    if record is None:
        return "-"
    value = record.physics.get(name, math.nan)
    if name.endswith(CORRELATION_TIME):
        text = f"{value:.1f}" if math.isfinite(value) else f"> {record.lead}"
        return f"{text} (persistence)" if name.startswith(PERSISTENCE) else text
    return f"{value:.3g}" if math.isfinite(value) else "diverged"


def _longest(records: Sequence[Record]) -> list[Record]:
    """Return the records of the summary at each system's longest lead and at the ends of its rollouts."""
    chosen = summary_records(records)
    longest = {record.system: record.lead for record in chosen if not record.is_rollout}
    return [record for record in chosen if record.is_rollout or record.lead == longest[record.system]]


SHOWN = film_of, errors_table, summary_records, spread_table, mesh_table, costs_table, physics_table, physics_meanings
PAGES.globals.update({each.__name__: each for each in (*SHOWN, compared_errors, compared_worst, compared_worth)})
PAGES.globals["plots"] = plots
