"""The README.md of an exported model: its training data, its errors, the command that trained it, and how to load it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from matey.checkpoints.run_files import ABOUT, COMMANDS, METRICS
from matey.checkpoints.source import Source
from matey.checkpoints.trained import read_log
from matey.config import RunConfig

LOADING = """```python
from matey import MateyModel

model = MateyModel.from_pretrained("this folder")
```

After that import, `transformers.AutoModel.from_pretrained` loads it as well; no code comes with the weights."""


def model_card(source: Source, settings: RunConfig, run: Path, is_average: bool) -> str:
    """Return the model card, with the metadata that the Hugging Face Hub reads at its head.

    Args:
        source: the checkpoint that the weights come from.
        settings: the settings of the run.
        run: the run's folder, with its log and commands.
        is_average: whether the weights are the moving average.
    """
    lines = read_log(run / METRICS)
    validation = next((line for line in reversed(lines) if "valid_nrmse" in line and line["step"] <= source.step), None)
    head = {"library_name": "matey-pde", "tags": ["physics", "partial-differential-equations"]}
    kind = f"moving average of the weights (decay {settings.train.ema:g})" if is_average else "weights"
    commands = run / COMMANDS
    card = "\n".join(
        [
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
            f"# {run.resolve().name}\n",
            f"A MATEY model: {kind} after step {source.step} of {settings.train.steps}.\n",
            "It predicts a frame of a physical system from the frames before it; every field of every sample is normalised by "
            "its own mean and deviation over the history, so that units do not matter.\n",
            LOADING,
            f"\n## Model\n\n{_model(settings)}",
            f"\n## Training data and splits\n\n{_data(settings, run)}",
            f"\n## Metrics\n\n{_metrics(validation, settings)}",
            "\n## Command\n\n```",
            commands.read_text(encoding="utf-8").strip() if commands.is_file() else "not recorded",
            "```\n",
        ]
    )
    return re.sub("<(?=[/!?a-zA-Z])", "&lt;", card)  # no name of a run, file or field becomes HTML


def _model(settings: RunConfig) -> str:
    model, tokens = settings.model, settings.tokens
    decoded = model.predict or ("field" if model.network == "paper" else "rate")
    return (
        f"* network {model.network}, size {model.size}, attention {model.scheme}, decodes the {decoded}\n"
        f"* patches [t, z, y, x]: {', '.join(str(list(patch)) for patch in tokens.patches)}; {tokens.set}, split by "
        f"{tokens.rule} {tokens.refine:g}\n"
        f"* history of {settings.data.history} frames, leads of 1 to {settings.data.lead_max} snapshots\n"
        f"* fields: {', '.join(model.fields or ())}"
        + (f"\n* given, not predicted: {', '.join(model.given)}" if model.given else "")
        + (f"\n* parameters: {', '.join(model.parameters)}" if model.parameters else "")
    )


def _data(settings: RunConfig, run: Path) -> str:
    data, about = settings.data, run / ABOUT
    shares = "/".join(f"{share:g}" for share in data.split)
    split = f"Split by trajectory, {shares} train/valid/test, with seed {data.split_seed}; data's own splits are kept."
    if cut := [entry.path for entry in data.sets if entry.split_by == "time"]:
        split += f" The frames of each trajectory of {', '.join(cut)} are cut in time: train, valid, test."
    if about.is_file():
        return f"```\n{about.read_text(encoding='utf-8').strip()}\n```\n\n{split}"
    return "".join(f"* `{entry.path}`\n" for entry in data.sets) + f"\n{split}"


def _metrics(validation: dict[str, Any] | None, settings: RunConfig) -> str:
    if validation is None:
        return "No validation before this step."
    persistence = validation["valid_persistence_by_system"]
    rows = [
        f"| {system} | {error:.4f} | {persistence[system]:.4f} |"
        for system, error in validation["valid_nrmse_by_system"].items()
    ]
    leads = sorted({1, settings.data.lead_max})
    weights = "the moving average" if settings.train.ema else "the weights"
    return "\n".join(
        [
            f"NRMSE of {weights} at step {validation['step']} on validation trajectories, at lead "
            f"{' and '.join(map(str, leads))}, beside that of persistence (the last frame again):\n",
            "| system | MATEY | persistence |",
            "|---|---|---|",
            *rows,
        ]
    )
