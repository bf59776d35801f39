"""Readers, windows and the training stream; meets the model in ``matey.fields.FieldBatch`` alone."""

from matey.data.mixture import Mixture, micro_batches
from matey.data.registry import open_dataset
from matey.data.splits import Split, split_set, split_trajectories
from matey.data.trajectories import DataError, Trajectory, TrajectorySet
from matey.data.windows import Rollout, Window, read_rollouts, read_windows, spread_windows

__all__ = [
    "DataError",
    "Mixture",
    "Rollout",
    "Split",
    "Trajectory",
    "TrajectorySet",
    "Window",
    "micro_batches",
    "open_dataset",
    "read_rollouts",
    "read_windows",
    "split_set",
    "split_trajectories",
    "spread_windows",
]
