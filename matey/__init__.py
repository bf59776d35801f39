"""MATEY: multiscale adaptive transformers for spatiotemporal physics."""

from __future__ import annotations

from importlib import import_module

from matey.model.registration import register_with_transformers

__version__ = "0.1.0"
__all__ = ["FieldBatch", "MateyConfig", "MateyModel", "open_dataset", "rollout"]

# Imported on first use: the network brings transformers along, whose import takes longer than a small simulation.
_HOME = {
    "FieldBatch": "matey.fields",
    "MateyConfig": "matey.model.configuration",
    "MateyModel": "matey.model.matey",
    "open_dataset": "matey.data",
    "rollout": "matey.evaluate.rollout",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'matey' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


register_with_transformers()
