"""Scales of the loss, and windows to validate on where trajectories are shorter than history and largest lead.

The ranges of scales that a network is told of: those of the trajectories that are trained on.
"""

import math
from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from matey.checkpoints.run_files import LOCK
from matey.config import ConfigError, load_config
from matey.data.reading import read_windows
from matey.data.trajectories import DataError
from matey.train.loss import LossScale
from matey.train.run import pretrain
from matey.train.run_data import loss_scales, open_data, seen_scales, validation_windows, weighted_fields
from tests.support.laws import law
from tests.support.small_files import write_swe, write_waves


def still(path, trajectories=slice(None)):
    """Stop the waves of some trajectories of a file at their first frame."""
    with h5py.File(path, "a") as file:
        for group in list(file.values())[trajectories]:
            group["data"][:] = group["data"][:1]


def persistence(path, trajectories, history, lead, every=1):
    """Mean over all windows of a lead of how far the target is from the last frame, both read from the file itself."""
    errors = []
    with h5py.File(path) as file:
        for trajectory in trajectories:
            frames = file[f"{trajectory:04d}/data"][::every, ..., 0].astype(np.float64)
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
    assert 1 / scales["shallow_water"].loss(torch.ones(2, 1), torch.tensor([1.0, 2.0])) == pytest.approx(
        expected, rel=1e-5
    )
    assert loss_scales(load_config(run_yaml(train={"loss": "nrmse"})), data) == {"shallow_water": LossScale()}


def test_the_loss_measures_kelvin_and_noise_by_the_noise(run_yaml, tmp_path):
    with h5py.File(tmp_path / "swe" / "2D_rdb_NA_NA.h5", "a") as file:
        for number, group in enumerate(file.values()):
            noise = np.random.default_rng(number).normal(size=group["data"].shape)
            group["data"][:] = 280 + 0.01 * noise
    run = load_config(run_yaml(train={"loss": "nrmse"}))
    data = open_data(run)
    scales = loss_scales(run, data)
    assert scales["shallow_water"].weights == pytest.approx({"water_height": 28_000}, rel=0.05)
    assert "water_height (28" in weighted_fields(data, scales)[0]
    balanced = load_config(run_yaml(train={"loss": "balanced"}))
    assert not loss_scales(balanced, data)["shallow_water"].weights, "a single field's weight cancels"
    of_last_frame = torch.tensor([[math.sqrt(2) * 0.01 / 280]])  # an NRMSE
    loss = scales["shallow_water"].loss(of_last_frame, torch.ones(1), ("water_height",))
    assert loss.item() == pytest.approx(math.sqrt(2), rel=0.05)


def write_gas(folder, seed, **fields):
    """Describe files of one system whose fields are a mean with noise, ``(mean, deviation)`` by name."""
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(seed + number).normal(size=(len(fields), 8, 12, 12))
        with h5py.File(folder / f"{number}.h5", "w") as file:
            for (name, (mean, deviation)), values in zip(fields.items(), noise, strict=True):
                file[name] = mean + deviation * values
    axes = "axes: [time, y, x], boundary: {y: wall, x: wall}, spacing: {y: 1, x: 1}, time_step: 1"
    names = ", ".join(f"{name}: {name}" for name in fields)
    (folder / "matey.yaml").write_text(f"{{system: gas, files: '*.h5', {axes}, fields: {{{names}}}}}")
    return {"path": str(folder)}


def test_sets_of_one_system_share_the_weights_of_fields_by_name(run_yaml, tmp_path):
    one = write_gas(tmp_path / "one", 0, heat=(280, 0.1), speed=(0, 1))
    two = write_gas(tmp_path / "two", 9, speed=(0, 1), heat=(280, 0.1), gas=(0, 1))
    for loss in ("nrmse", "balanced"):
        run = load_config(run_yaml(data={"sets": [one, two]}, train={"loss": loss}))
        data = open_data(run)
        scales = loss_scales(run, data)
        assert scales["gas"].weights == pytest.approx({"heat": 2800}, rel=0.05)
        assert len(weighted_fields(data, scales)) == 1


def test_values_that_floors_would_hide_are_refused_with_a_scale(run_yaml, tmp_path):
    run = load_config(run_yaml(data={"sets": [write_gas(tmp_path / "gas", 0, heat=(0, 1e-12))]}))
    with pytest.raises(ConfigError, match="gas: heat has values of 1e-12, .* such as scale: 1e[+]12"):
        loss_scales(run, open_data(run))


def test_coarser_views_are_drawn_by_weight_with_a_scale_of_the_loss_of_their_own(run_yaml, tmp_path):
    coarsened = [{"frames": 2, "weight": 0.5}, {"cells": 4, "weight": 0.25}]
    run = load_config(
        run_yaml(
            data={"coarsened": coarsened, "trajectories": 3}, train={"loss": "balanced", "validation_windows": 1000}
        )
    )
    data = open_data(run)
    assert data.mixture.shares == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert [each.system for each in data.sets] == ["shallow_water"] and data.mixture.train == (
        data.splits[0].train,
    ) * 3
    windows = data.mixture.global_batch(0, 70)
    batches = read_windows(data.mixture.sets, windows, 2)
    assert sorted((batch.num_samples, batch.grid[1:]) for batch in batches) == [
        (10, (4, 4)),
        (20, (16, 16)),
        (40, (16, 16)),
    ]
    scales = loss_scales(run, data)
    assert list(scales) == [source.system for source in data.mixture.sets] and len(scales) == 3
    path = tmp_path / "swe" / "2D_rdb_NA_NA.h5"
    expected = [persistence(path, data.splits[0].train, history=2, lead=1, every=every) for every in (1, 2)]
    found = [1 / scale.loss(torch.ones(1, 1), torch.ones(1)).item() for scale in scales.values()][:2]
    assert found == pytest.approx(expected, rel=1e-5)


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


def test_a_trajectory_too_short_to_validate_on_is_refused_before_anything_is_written(run_yaml, tmp_path):
    path = write_swe(tmp_path / "short" / "2D_rdb_NA_NA.h5", 1, num_frames=2)
    run = load_config(run_yaml(data={"validate_on": [str(path)]}))
    with pytest.raises(DataError, match="expected at least 3 frames, 2 of history and 1 to predict, got 2"):
        pretrain(run, {}, print)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def ranges_by_hand(path, trajectories, history):
    """Smallest and largest scales of all histories that have a target, and a margin, read from the file itself."""
    found = []
    with h5py.File(path) as file:
        for trajectory in trajectories:
            frames = file[f"{trajectory:04d}/data"][..., 0].astype(np.float64)
            for last in range(history - 1, len(frames) - 1):
                known = frames[last + 1 - history : last + 1]
                change = np.sqrt(np.mean((known[-1] - known[-2]) ** 2))
                found.append(
                    [np.arcsinh(known.mean() / known.std()), np.log(known.std()), np.log(change / known.std())]
                )
    low, high = np.min(found, axis=0), np.max(found, axis=0)
    return [low - 0.1 * (high - low), high + 0.1 * (high - low)]


@law("history", [2, 3], quick=[3])
def test_ranges_are_those_of_the_frames_that_are_trained_on(run_yaml, tmp_path, history):
    run = load_config(run_yaml(data={"history": history, "trajectories": 3}))
    data = open_data(run)
    (bounds,) = seen_scales(run, data, None).values()
    expected = ranges_by_hand(tmp_path / "swe" / "2D_rdb_NA_NA.h5", data.splits[0].train, history)
    np.testing.assert_allclose(bounds, expected, rtol=1e-4)


def test_ranges_of_a_pretrained_model_are_widened_by_what_it_is_fine_tuned_on(run_yaml):
    run = load_config(run_yaml(data={"trajectories": 3}))
    data = open_data(run)
    own = seen_scales(run, data, None)["water_height"]
    before = {"water_height": [[-9.0, own[0][1], 0.0], [-8.0, own[1][1], 9.0]], "tracer": [[0.0] * 3, [1.0] * 3]}
    ranges = seen_scales(run, data, before)
    low, high = ranges["water_height"]
    assert ranges["tracer"] == before["tracer"]
    assert low == [-9.0, own[0][1], min(own[0][2], 0.0)] and high == [own[1][0], own[1][1], 9.0]


def test_persistence_of_frames_read_in_slabs_is_that_of_whole_ones(run_yaml, monkeypatch):
    run = load_config(run_yaml(train={"loss": "balanced"}))
    data = open_data(run)
    whole = loss_scales(run, data)["shallow_water"]
    monkeypatch.setattr("matey.train.run_data.AT_ONCE", 3 * 4 * 16)  # three of sixteen rows
    assert loss_scales(run, data)["shallow_water"].first == pytest.approx(whole.first, rel=1e-6)
