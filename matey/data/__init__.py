"""Readers, windows and the training stream; the model sees them only through ``matey.fields.FieldBatch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matey.data.from_xarray import from_xarray
from matey.data.registry import open_dataset, open_sets
from matey.data.splits import Split, split_set
from matey.data.trajectories import Coordinates, DataError, Trajectory, TrajectorySet
from matey.data.windows import Mixture, Window, spread_windows
from matey.registry import on_first_use

if TYPE_CHECKING:
    from matey.data.reading import read_rollout, read_windows
    from matey.data.stream import micro_batches

# Imported on first use, since they make tensors: files are opened, described and checked without PyTorch.
__getattr__, __dir__ = on_first_use(
    __name__,
    micro_batches="matey.data.stream",
    **dict.fromkeys(("read_rollout", "read_windows"), "matey.data.reading"),
)
