"""MATEY: multiscale adaptive transformers for spatiotemporal physics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matey.data import from_xarray, open_dataset
    from matey.evaluate.forecasts.series import forecast
    from matey.evaluate.rollout import rollout
    from matey.fields import FieldBatch
    from matey.metrics import nrmse
    from matey.model.configuration import MateyConfig
    from matey.model.matey import MateyModel

__version__ = "0.1.0"
__all__ = ["FieldBatch", "MateyConfig", "MateyModel", "forecast", "from_xarray", "nrmse", "open_dataset", "rollout"]

# Imported on first use: the network imports transformers, which takes longer than a small simulation.
_HOME = {
    "FieldBatch": "matey.fields",
    "MateyConfig": "matey.model.configuration",
    "MateyModel": "matey.model.matey",
    "forecast": "matey.evaluate.forecasts.series",
    "from_xarray": "matey.data",
    "nrmse": "matey.metrics",
    "open_dataset": "matey.data",
    "rollout": "matey.evaluate.rollout",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'matey' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
