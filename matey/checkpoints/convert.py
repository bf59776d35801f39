"""Turns a checkpoint into a model folder, bare float32 weights, or a run's folder that any engine can resume, and describes it.

An exported model has a README.md: its training data, its errors, the command that trained it, and how to load it.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from jinja2 import StrictUndefined, Template
from safetensors import SafetensorError
from torch import Tensor

from matey.checkpoints import run_files
from matey.checkpoints.source import (
    AVERAGE,
    MOMENTS,
    WEIGHTS,
    Source,
    laid_out,
    universal_file,
)
from matey.checkpoints.trained import read_log
from matey.config import RunConfig, load_config
from matey.mistakes import Mistake, one_line
from matey.model.configuration import MateyConfig
from matey.model.matey import MateyModel, quiet
from matey.model.parts import merge_adapters

MAX_SHARD = "5GB"  # size of a safetensors file that the Hugging Face Hub recommends


class ConversionError(Mistake):
    """A conversion that cannot be done: one sentence with what to do."""


def convert(source: Source, run: Path | None, form: str, out: Path, *, average: bool, dtype: str) -> str:
    """Write a checkpoint in another form to a folder that does not exist yet, and return a text on how to use it.

    Args:
        source: the checkpoint.
        run: the folder of its run, which ``huggingface`` and ``universal`` need.
        form: the form to write, ``huggingface``, ``fp32`` or ``universal``.
        out: the folder to write; it appears once it is complete.
        average: whether to take the moving average in place of the weights.
        dtype: precision of the weights, for ``huggingface``.

    Raises:
        ShardError: the checkpoint is corrupt.
        ConversionError: the checkpoint lacks the values asked for, or the folder exists or cannot be written.
    """
    _check(source, run, form, out, average, dtype)
    new = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        words = _WRITERS[form](source, run, new, AVERAGE if average else WEIGHTS, getattr(torch, dtype))
        run_files.flush(new)
        new.rename(out)
    except (OSError, RuntimeError, SafetensorError) as error:  # what Python, torch and safetensors raise on a full disk
        raise ConversionError(f"Cannot write {out} ({one_line(error)}); make room, or choose another --out.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return words.format(out=out)


def _check(source: Source, run: Path | None, form: str, out: Path, average: bool, dtype: str) -> None:
    if out.exists():
        raise ConversionError(f"{out} exists already; choose another --out, or remove it.")
    if average and not source.has_average:
        raise ConversionError(f"{source.folder} has no moving average; train with train.ema set, or leave --ema out.")
    if dtype != "float32" and form != "huggingface":
        raise ConversionError(f"--to {form} keeps float32; --dtype {dtype} is for --to huggingface.")
    if run is None and form != "fp32":
        raise ConversionError(
            f"{source.folder} does not lie in a run's {run_files.CHECKPOINTS}/, and --to {form} needs the run's "
            f"{run_files.CONFIG}; put it back, or use --to fp32."
        )


def _weights(source: Source, what: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all weights by name, adapters merged, converted one by one without a second copy."""
    weights = source.whole(what)
    weights.update(source.frozen())
    if source.adapters is not None:
        weights = merge_adapters(weights, *source.adapters)
    for name in weights:
        weights[name] = weights[name].to(dtype)
    return weights


def _huggingface(source: Source, run: Path | None, new: Path, what: str, dtype: torch.dtype) -> str:
    assert run is not None, "_check refuses a checkpoint without a run"
    settings = load_config(run / run_files.CONFIG)
    config = MateyConfig.from_dict(source.network)
    config.dtype = dtype
    with torch.device("meta"):
        model = MateyModel(config)
    try:
        model.load_state_dict(_weights(source, what, dtype), assign=True)
    except RuntimeError as error:
        raise run_files.ShardError(
            f"{source.folder} is corrupt: it does not hold the weights of its network "
            f"({str(error).splitlines()[1].strip()}); take an older checkpoint."
        ) from None
    with quiet():
        model.save_pretrained(new, max_shard_size=MAX_SHARD)
    (new / "README.md").write_text(model_card(source, settings, run, what == AVERAGE), encoding="utf-8")
    if (run / run_files.SEEN).is_file():
        shutil.copy2(run / run_files.SEEN, new)
    return "Model: {out}. Load it with MateyModel.from_pretrained('{out}')."


def _fp32(source: Source, run: Path | None, new: Path, what: str, dtype: torch.dtype) -> str:
    save_torch_state_dict(_weights(source, what, dtype), new, max_shard_size=MAX_SHARD)
    return "Weights: {out}, by the names of the module's state dict."


def _universal(source: Source, run: Path | None, new: Path, what: str, dtype: torch.dtype) -> str:
    assert run is not None, "_check refuses a checkpoint without a run"
    write_universal(source, new / run_files.CHECKPOINTS / run_files.step_name(source.step))
    (new / run_files.CHECKPOINTS / run_files.LATEST).write_text(run_files.step_name(source.step), encoding="utf-8")
    for path in (run / name for name in run_files.RUN_FILES):
        if path.is_dir():
            shutil.copytree(path, new / path.name)
        elif path.is_file():
            shutil.copy2(path, new)
    return (
        "Go on with --resume --set output.dir={out}, on any ranks. Keep the global batch: train.micro_batch x "
        "train.accumulation x (ranks over parallel.sequence_parallel_size)."
    )


def write_universal(source: Source, folder: Path) -> None:
    """Write a checkpoint in universal form, one quantity after another, so that memory holds one copy of the weights at a time.

    The universal form holds whole parameters and moments, from which any number of ranks and any ZeRO stage can resume. The
    layout is DeepSpeed's own, ``zero/<parameter>/{fp32,exp_avg,exp_avg_sq,step}.pt``, with ``ema/<parameter>.pt`` beside it.
    DeepSpeed's converter is not used: it cannot convert ZeRO 0, unpickles any object, and ignores the moving average.

    Raises:
        ShardError: the checkpoint is universal already, or cannot be read.
    """
    if source.stage is None:
        raise run_files.ShardError(f"{source.folder} is universal already; resume it as it is.")
    quantities = (WEIGHTS, *MOMENTS, *((AVERAGE,) if source.has_average else ()))
    for what in quantities:
        for name, values in source.whole(what).items():
            path = universal_file(folder, what, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"param": values}, path)
    for name in source.shapes:
        torch.save(torch.tensor(float(source.step)), universal_file(folder, "step", name))
    about = {"param_groups": source.param_groups(), "ds_version": source.common["ds_version"]}
    torch.save(about, folder / "zero" / "optimizer_state.pt")
    common = {
        **source.common,
        "module": source.frozen(),
        "param_shapes": source.common["param_shapes"] or [source.shapes],
        "optimizer": None,
        "frozen_param_fragments": None,
    }
    torch.save(common, folder / run_files.MODEL_STATES)


_WRITERS: dict[str, Callable[[Source, Path | None, Path, str, torch.dtype], str]] = {
    "huggingface": _huggingface,
    "fp32": _fp32,
    "universal": _universal,
}


CARD = Template(
    Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def model_card(source: Source, settings: RunConfig, run: Path, is_average: bool) -> str:
    """Return the model card, with the metadata that the Hugging Face Hub reads at its head.

    Args:
        source: the checkpoint that the weights come from.
        settings: the settings of the run.
        run: the run's folder, with its log and commands.
        is_average: whether the weights are the moving average.
    """
    lines = read_log(run / run_files.METRICS)
    validation = next((line for line in reversed(lines) if "valid_vrmse" in line and line["step"] <= source.step), None)
    about, commands = (
        path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        for path in (run / run_files.ABOUT, run / run_files.COMMANDS)
    )
    card = CARD.render(
        dict(settings),
        name=run.resolve().name,
        step=source.step,
        is_average=is_average,
        validation=validation,
        about=about,
        commands=commands,
    )
    return re.sub("<(?=[/!?a-zA-Z])", "&lt;", card)  # no name of a run, file or field becomes HTML


def describe(source: Source, run: Path | None) -> str:
    """Return the facts of a checkpoint, one per line."""
    with laid_out(source.folder):
        common, shapes = source.common, source.shapes
        versions = {"deepspeed": common["ds_version"], **common["versions"]}
        by_muon = sum(math.prod(shapes[name]) for name in source.by_muon)
        trained = sum(map(math.prod, shapes.values()))
    stage = f"{common['zero_stage']}, now universal" if source.stage is None else source.stage
    facts = [
        ("checkpoint", str(source.folder)),
        ("step", f"{source.step}"),
        ("saved", f"by {source.num_ranks} ranks with ZeRO stage {stage}"),
        ("parameters", f"{trained:,} trained in {len(shapes)} tensors"),
        ("optimizer", f"Muon on {by_muon:,} of these, AdamW on the others" if by_muon else "AdamW"),
        ("average", "moving average of the weights" if source.has_average else "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        *(_of_run(run) if run else [("run", "none: the checkpoint does not lie in a run's checkpoints/")]),
    ]
    return "\n".join(f"{term:<12}{fact}" for term, fact in facts)


def _of_run(run: Path) -> list[tuple[str, str]]:
    settings = load_config(run / run_files.CONFIG)
    model, tokens, data = settings.model, settings.tokens, settings.data
    return [
        ("run", str(run)),
        ("model", f"{model.size} {model.scheme}, {tokens.set} patches {[list(patch) for patch in tokens.patches]}"),
        ("fields", ", ".join(model.fields or ())),
        ("given", ", ".join(model.given) or "none"),
        ("parameters", ", ".join(model.parameters) or "none"),
        ("history", f"{data.history} frames, leads of 1 to {data.lead_max} snapshots"),
        ("data", ", ".join(entry.path for entry in data.sets)),
        ("sequence", f"groups of {settings.parallel.sequence_parallel_size} ranks share samples"),
    ]
