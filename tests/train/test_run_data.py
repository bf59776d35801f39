"""Scales of the loss, and windows to validate on where trajectories are shorter than history and largest lead."""

from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from matey.config import ConfigError, load_config
from matey.data.trajectories import DataError
from matey.train.loss import LossScale
from matey.train.pretrain import pretrain
from matey.train.run_data import loss_scales, open_data, validation_windows
from tests.support.small_files import write_swe, write_waves


def still(path, trajectories=slice(None)):
    """Stop the waves of some trajectories of a file at their first frame."""
    with h5py.File(path, "a") as file:
        for group in list(file.values())[trajectories]:
            group["data"][:] = group["data"][:1]


def persistence(path, trajectories, history, lead):
    """Mean over all windows of a lead of how far the target is from the last frame, both read from the file itself."""
    errors = []
    with h5py.File(path) as file:
        for trajectory in trajectories:
            frames = file[f"{trajectory:04d}/data"][..., 0].astype(np.float64)
            for last in range(history - 1, len(frames) - lead):
                error = np.linalg.norm(frames[last + lead] - frames[last])
                errors.append(error / np.linalg.norm(frames[last + lead]))
    return np.mean(errors)


def test_a_balanced_loss_is_in_units_of_persistence_on_the_training_windows(run_yaml, tmp_path):
    path = tmp_path / "swe" / "2D_rdb_NA_NA.h5"
    still(path, slice(0, 5))
    run = load_config(run_yaml(train={"loss": "balanced", "validation_windows": 1000}))
    data = open_data(run)
    expected = [persistence(path, data.splits[0].train, history=2, lead=lead) for lead in (1, 2)]
    scales = loss_scales(run, data)
    assert list(scales) == ["shallow_water"]
    assert scales["shallow_water"].at(torch.tensor([1.0, 2.0])).tolist() == pytest.approx(expected, rel=1e-5)
    assert loss_scales(load_config(run_yaml(train={"loss": "nrmse"})), data) == {"shallow_water": LossScale()}


def test_a_balanced_loss_of_a_system_that_stands_still_is_refused(run_yaml, tmp_path):
    still(tmp_path / "swe" / "2D_rdb_NA_NA.h5")
    run = load_config(run_yaml(train={"loss": "balanced"}))
    with pytest.raises(ConfigError, match="'balanced' .* shallow_water does not change; .* 'nrmse'"):
        loss_scales(run, open_data(run))


def test_leads_are_cut_to_what_the_trajectories_of_a_set_allow(run_yaml, tmp_path):
    write_waves(tmp_path / "waves", "diffusion_reaction", num_trajectories=2, num_frames=16)
    data = {"history": 10, "lead_max": 50, "validate_on": [str(tmp_path / "waves")]}
    run = load_config(run_yaml(data=data, train={"validation_windows": 4, "loss": "balanced"}))
    opened = open_data(run)
    assert [source.trajectories[0].num_frames for source in opened.all_sets] == [12, 16]
    leads = Counter((window.set_index, window.lead) for window in validation_windows(run, opened))
    # Of one validation trajectory of 12 frames only one window of lead 2 fits.
    assert leads == {(0, 1): 2, (0, 2): 1, (1, 1): 2, (1, 6): 2}
    drawn = {window.lead for step in range(20) for window in opened.mixture.global_batch(step, 8)}
    assert drawn == {1, 2} and list(loss_scales(run, opened)) == ["shallow_water"]


def test_a_trajectory_too_short_to_validate_on_leaves_the_runs_folder_untouched(run_yaml, tmp_path):
    path = write_swe(tmp_path / "short" / "2D_rdb_NA_NA.h5", 1, num_frames=2)
    run = load_config(run_yaml(data={"validate_on": [str(path)]}))
    with pytest.raises(DataError, match="expected at least 3 frames, 2 of history and 1 to predict, got 2"):
        pretrain(run, {}, print)
    assert not (tmp_path / "run").exists()
