"""MATEY: multiscale adaptive transformers for spatiotemporal physics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matey.registry import on_first_use

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
__getattr__, __dir__ = on_first_use(
    __name__,
    FieldBatch="matey.fields",
    MateyConfig="matey.model.configuration",
    MateyModel="matey.model.matey",
    forecast="matey.evaluate.forecasts.series",
    from_xarray="matey.data",
    nrmse="matey.metrics",
    open_dataset="matey.data",
    rollout="matey.evaluate.rollout",
)
