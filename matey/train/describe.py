"""What a run says of itself: before its first step, after each validation, and at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from matey.checkpoints.run_files import METRICS, MODEL, best_validation
from matey.config import Part, RunConfig
from matey.data.trajectories import lacking_note
from matey.data.views import TimeBlocks
from matey.metrics import error_text
from matey.model.matey import MateyModel
from matey.model.parts import is_adapter, part_of
from matey.model.transfer import Transfer
from matey.parallel.exchange import Topology
from matey.parallel.master import matrices_of_blocks
from matey.text_table import text_table
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import padding_note
from matey.train.network import activation_bytes
from matey.train.run_data import RunData


def describe(run: RunConfig, run_data: RunData, model: MateyModel, topology: Topology, first_step: int) -> str:
    """Return the lines that open a run: data, model, batch."""
    lines = []
    sets, mixture = run_data.sets, run_data.mixture
    shares = mixture.shares[: len(sets)]
    for data, split, share, section in zip(sets, run_data.splits, shares, run.data.sets, strict=True):
        what = "blocks of trajectories cut in time" if isinstance(data, TimeBlocks) else "trajectories"
        counts = f"{len(split.train)}/{len(split.valid)}/{len(split.test)} train/valid/test {what}"
        lines.append(f"{data.system}: {', '.join(data.fields)}; {counts}; {share:.1%} of the samples; {section.path}")
    for data, share in list(zip(mixture.sets, mixture.shares, strict=True))[len(sets) :]:
        lines.append(f"{data.system}: {share:.1%} of the samples")
    learnt = {name for data in sets for name in data.fields}
    for data, path in zip(run_data.others, run.data.validate_on, strict=True):
        names = ", ".join(name if name in learnt else f"{name} (not trained)" for name in data.fields)
        lines.append(f"{data.system}: {names}; {data.num_trajectories} trajectories to validate on; {path}")
    for data in run_data.all_sets:
        for grid in dict.fromkeys(trajectory.grid for trajectory in data.trajectories):
            if note := padding_note(grid, run.tokens.patches[0]):
                lines.append(f"{data.system}: {note}")
    lines += filter(None, [lacking_note(model.config.parameters, model.config.given, run_data.all_sets)])
    num_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    samples = run.train.micro_batch * run.train.accumulation * topology.num_data_ranks
    lines.append(
        f"{run.model.size} {run.model.scheme}, {num_parameters:,} parameters; {run.tokens.set} patches "
        f"{[list(patch) for patch in run.tokens.patches]}; global batch {samples} samples on {topology.num_ranks} ranks"
    )
    if run.train.optimizer == "muon" and (shapes := matrices_of_blocks(model)):
        num_weights = sum(shape.numel() for shape in shapes.values())
        lines.append(f"Muon trains {num_weights:,} weights in {len(shapes)} matrices of the blocks, AdamW all others.")
    elif run.train.optimizer == "muon":
        lines.append("AdamW trains all: train.optimizer is muon, but no matrix of the blocks is trained.")
    if topology.sequence_parallel_size > 1:
        lines.append(
            f"{topology.num_data_ranks} sequence groups of {topology.sequence_parallel_size} ranks: attention exchanges tokens "
            f"for heads among {topology.head_ways} and shares queries among {topology.query_ways}"
        )
    if first_step:
        lines.append(f"Going on after step {first_step}.")
    return "\n".join(lines)


def parts_table(model: MateyModel, transferred: Transfer | None) -> str:
    """Return a table of parameter counts by part: all, those taken over from a pretrained model, and those trained.

    Args:
        model: the model, with frozen parameters as in training, before an engine divides it.
        transferred: the weights that the model took over; None for random weights.
    """
    counts: dict[str, list[int]] = {part: [0, 0, 0] for part in get_args(Part)}
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        counted = counts.setdefault("adapters", [0, 0, 0]) if is_adapter(name) else counts[part_of(name)]
        counted[0] += parameter.numel()
        counted[1] += 0 if transferred is None else transferred.reused.get(plain, 0)
        counted[2] += parameter.numel() if parameter.requires_grad else 0
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [
        (part, *(f"{count:,}" for count in (number, reused, number - reused, trained)))
        for part, (number, reused, trained) in counts.items()
    ]
    lines = text_table(("parameters", "all", "reused", "new", "trained"), rows).splitlines()
    lines.insert(-1, lines[1])
    return "\n".join(lines)


def describe_tokens(run: RunConfig, model: MateyModel, topology: Topology, layout: TokenLayout) -> str:
    """Return a sentence on the tokens of one micro-batch and the activations of a rank."""
    counts = layout.level.bincount(minlength=len(model.config.patches)).tolist()
    by_level = ", ".join(f"{count} of {list(p)}" for count, p in zip(counts, model.config.patches, strict=True))
    share = -(-layout.num_tokens // topology.sequence_parallel_size)
    recompute, offloaded = run.parallel.checkpoint_blocks, run.parallel.offload_activations
    kept = activation_bytes(model.config, share, len(model.keys), recompute, offloaded=offloaded)
    return (
        f"A micro-batch of {run.train.micro_batch} samples has {layout.num_tokens} tokens ({by_level}); a rank holds {share} "
        f"and keeps about {kept / 2**20:.0f} MiB in its blocks for the backward pass, in float32."
    )


def validation_sentence(step: int, numbers: Mapping[str, Any], *, is_best: bool) -> str:
    """Return a line on one validation: VRMSE over all systems, and of each with its ratio to persistence.

    Args:
        step: the step after which the validation was made.
        numbers: errors as `matey.train.loop.validate` returns them.
        is_best: whether it is the best of the run so far.
    """
    persistence = numbers["valid_persistence_by_system"]
    of_systems = [
        f"{system} {error_text(error)} ({_ratio(error, persistence[system])} of persistence)"
        for system, error in numbers["valid_vrmse_by_system"].items()
    ]
    best = ", the best so far" if is_best else ""
    return f"Step {step}: validation VRMSE {error_text(numbers['valid_vrmse'])}{best}; {', '.join(of_systems)}"


def closing(log: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the lines that end a run: its best validation as a table, where its results lie, and how to evaluate it.

    Args:
        log: lines of the run's ``metrics.jsonl``.
        folder: the run's folder.
    """
    lines = []
    if best := best_validation([line for line in log if "valid_vrmse" in line]):
        persistence = best["valid_persistence_by_system"]
        rows = [
            (system, error_text(error), error_text(persistence[system]), _ratio(error, persistence[system]))
            for system, error in best["valid_vrmse_by_system"].items()
        ]
        head = (f"best validation (step {best['step']})", "VRMSE", "persistence", "ratio")
        lines += ["", text_table(head, rows), ""]
    flags = shlex.join(["--checkpoint", str(folder), "--out", str(folder)])
    lines += [f"Weights: {folder / MODEL}   metrics: {folder / METRICS}", f"Next: matey evaluate {flags}"]
    return "\n".join(lines)


def _ratio(error: float, of_persistence: float) -> str:
    return f"{error / of_persistence:.3f}" if of_persistence else "-"
