"""Scales of the loss."""

import h5py
import numpy as np
import pytest

from matey.config import ConfigError, load_config
from matey.train.run_data import loss_scales, open_data


def still(path, trajectories=slice(None)):
    """Stop the waves of some trajectories of a file at their first frame."""
    with h5py.File(path, "a") as file:
        for group in list(file.values())[trajectories]:
            group["data"][:] = group["data"][:1]


def persistence(path, trajectories, history, leads):
    """Mean over all windows of how far the target is from the last frame, both read from the file itself."""
    errors = []
    with h5py.File(path) as file:
        for trajectory in trajectories:
            frames = file[f"{trajectory:04d}/data"][..., 0].astype(np.float64)
            for lead in leads:
                for last in range(history - 1, len(frames) - lead):
                    error = np.linalg.norm(frames[last + lead] - frames[last])
                    errors.append(error / np.linalg.norm(frames[last + lead]))
    return np.mean(errors)


def test_a_balanced_loss_is_in_units_of_persistence_on_the_training_windows(run_yaml, tmp_path):
    path = tmp_path / "swe" / "2D_rdb_NA_NA.h5"
    still(path, slice(0, 5))
    run = load_config(run_yaml(train={"loss": "balanced", "validation_windows": 1000}))
    data = open_data(run)
    expected = persistence(path, data.splits[0].train, history=2, leads=(1, 2))
    assert loss_scales(run, data) == {"shallow_water": pytest.approx(expected, rel=1e-5)}
    assert loss_scales(load_config(run_yaml(train={"loss": "nrmse"})), data) == {"shallow_water": 1.0}


def test_a_balanced_loss_of_a_system_that_stands_still_is_refused(run_yaml, tmp_path):
    still(tmp_path / "swe" / "2D_rdb_NA_NA.h5")
    run = load_config(run_yaml(train={"loss": "balanced"}))
    with pytest.raises(ConfigError, match="'balanced' .* shallow_water does not change; .* 'nrmse'"):
        loss_scales(run, open_data(run))
