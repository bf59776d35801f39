"""Finds what was trained in a folder: a run with its configuration and log, or a model alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from matey.checkpoints.run_files import MODEL, SPLIT
from matey.config import RunConfig, load_resolved
from matey.data.split_record import SplitRecord, read_record
from matey.model.matey import MateyModel

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class CheckpointError(ValueError):
    """A folder that holds no usable model: one sentence with what was looked for and what to do."""


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known about its training.

    Attributes:
        name: of the run's or the model's folder.
        model: with its weights, on the CPU.
        run: configuration of the run; None for a model alone.
        log: lines of the run's ``metrics.jsonl``, by step; empty for a model alone.
        split: what each part of the training's data held, also where a model's folder still lies in that of its run; None
            where that is not recorded.
        card: the model card of a model alone, empty where there is none.
    """

    name: str
    model: MateyModel
    run: RunConfig | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    split: SplitRecord | None = None
    card: str = ""

    @property
    def num_frames(self) -> int | None:
        """Frames of history that the model was trained with, if that is known."""
        return self.run.data.history if self.run else getattr(self.model.config, "history", None)

    @property
    def lead_max(self) -> int | None:
        """Longest lead time in snapshots that the model was trained on, if the run or the model card says."""
        if self.run:
            return self.run.data.lead_max
        stated = re.search(r"leads of 1 to (\d+) snapshots", self.card)
        return int(stated[1]) if stated else None


def load_trained(folder: str | Path) -> Trained:
    """Load a run folder (``config.yaml``, ``model/``, ``metrics.jsonl``) or a model folder (``config.json``, weights).

    Raises:
        CheckpointError: there is no such folder, it is neither, or the model in it is damaged.
        ConfigError: the run's ``config.yaml`` is not a run configuration.
        DataError: the record of how the run split its data is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}; give a run's folder, or its model/.")
    name = folder.resolve().name
    if (folder / "config.yaml").is_file():
        if not (folder / "model").is_dir():
            raise CheckpointError(
                f"The run {folder} has no model/ yet, which training writes at its validations; train it further."
            )
        return Trained(
            name,
            _load_model(folder / "model"),
            load_resolved(folder / "config.yaml"),
            read_log(folder / "metrics.jsonl"),
            read_record(folder / SPLIT),
        )
    if (folder / "config.json").is_file():
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        split = read_record(folder.resolve().parent / SPLIT) if name == MODEL else None
        return Trained(name, _load_model(folder), split=split, card=text)
    raise CheckpointError(
        f"{folder} is neither a run (it has no config.yaml) nor a model (it has no config.json); "
        "give the folder that output.dir names in the run YAML, or its model/."
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` in the order of steps; where a resumed run logged a step again, the newer line counts.

    Returns:
        one object per training step and per validation; an empty list without the file.
    """
    if not path.is_file():
        return []
    lines: dict[tuple[int, bool], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            lines[line["step"], "valid_nrmse" in line] = line
        except (json.JSONDecodeError, KeyError, TypeError):
            # A run that was killed while writing leaves half a line, and a run that goes on writes behind it.
            continue
    return [lines[key] for key in sorted(lines)]


def _load_model(folder: Path) -> MateyModel:
    for names in (("config.json",), WEIGHTS):
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"{folder} has no {' or '.join(names)}; expected what save_pretrained writes.")
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise CheckpointError(f"{folder / 'config.json'} is damaged; copy the model again.") from None
    if model_type != MateyModel.config_class.model_type:
        raise CheckpointError(f"{folder} holds a model of type {model_type!r}, not 'matey'.")
    try:
        model, info = MateyModel.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    except (OSError, ValueError, SafetensorError) as error:
        sentence = str(error).removesuffix(".")
        raise CheckpointError(f"The model in {folder} cannot be loaded: {sentence}; copy the model again.") from None
    # Hugging Face fills weights that are missing or do not fit with random numbers and goes on.
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of the weights that config.json asks for are missing from {folder} or of another shape, "
            f"such as {wrong[0]}; take config.json and weights from one and the same model."
        )
    return model
