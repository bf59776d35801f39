"""Tells apart the folders of runs, models and peers, and explains an error if a folder is none of these; opens no file."""

from __future__ import annotations

from pathlib import Path

from matey.checkpoints.run_files import CONFIG, MODEL, MODEL_BEFORE, MODEL_CONFIG, PEER
from matey.config import shipped
from matey.config.flags import started_as
from matey.mistakes import Mistake


class CheckpointError(Mistake):
    """A folder that holds no usable trained model: one sentence that says what to do."""


def is_peer(folder: Path) -> bool:
    """Whether a folder is a peer's, see `matey.checkpoints.peer_folder`."""
    return (shipped.find(folder) / PEER).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's (it has a ``config.yaml``); otherwise it is a model's (it has a ``config.json``).

    Raises:
        CheckpointError: there is no such folder, it is neither (perhaps a peer's), or the run has written no model yet.
    """
    folder = shipped.find(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}; give a run's folder, or its {MODEL}/.")
    if (folder / CONFIG).is_file():
        if not (folder / MODEL).is_dir():
            if (folder / MODEL_BEFORE).is_dir():
                raise CheckpointError(
                    f"The run {folder} was ended while it replaced its {MODEL}/: --resume repairs it, or rename "
                    f"{MODEL_BEFORE} to {MODEL}."
                )
            raise CheckpointError(
                f"The run {folder} has no {MODEL}/ yet, which training writes at its validations; train it further."
            )
        return True
    if (folder / MODEL_CONFIG).is_file():
        return False
    if is_peer(folder):
        evaluate = started_as("launch/evaluate.py", "evaluate")
        raise CheckpointError(f"{folder} holds a model to compare with ({PEER}), which only {evaluate} can load.")
    raise CheckpointError(
        f"{folder} is neither a run (it has no {CONFIG}) nor a model (it has no {MODEL_CONFIG}); "
        f"give the folder that output.dir names in the run YAML, or its {MODEL}/."
    )
