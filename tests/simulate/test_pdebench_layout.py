"""Written files against the files of the published generators, and what may not change their data."""

import h5py
import numpy as np
import pytest
import yaml

from matey.simulate.pdebench_layout import SYSTEMS, Ensemble, read_configs, solve_ensemble, write_ensemble


def written(folder, ensemble, **how):
    path = folder / ensemble.system.file_name
    write_ensemble(path, ensemble, solve_ensemble(ensemble, **how))
    return path


def structure(path):
    """Return what a reader can rely on: names, shapes, types and attributes of group 0000 and of the root."""
    found = {}
    with h5py.File(path) as file:
        assert all(group.keys() == file["0000"].keys() for group in file.values())
        found["/"] = sorted(file.attrs)
        file["0000"].visititems(
            lambda name, item: found.update({name: (getattr(item, "shape", None), getattr(item, "dtype", None))})
        )
        found["0000"] = {name: type(value) for name, value in file["0000"].attrs.items()}
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_file_is_laid_out_as_the_published_one(system, request, tmp_path, read_trajectories):
    published = request.getfixturevalue({"shallow_water": "published_dam_break"}.get(system, f"published_{system}"))
    ours = written(tmp_path, Ensemble(SYSTEMS[system], num_trajectories=2, resolution=64))
    assert ours.name == published.name
    assert structure(ours) == structure(published)
    with h5py.File(ours) as our_file, h5py.File(published) as their_file:
        for axis in "xyt":
            np.testing.assert_array_equal(our_file[f"0000/grid/{axis}"], their_file[f"0000/grid/{axis}"])
        settings = [yaml.safe_load(file["0000"].attrs["config"])["sim"] for file in (our_file, their_file)]
        assert settings[0] == settings[1]
        ours_last, theirs_last = our_file["0000/data"][-1], their_file["0000/data"][-1]
        assert np.linalg.norm(ours_last - theirs_last) < 0.01 * np.linalg.norm(theirs_last)


@pytest.mark.parametrize("system", SYSTEMS)
def test_batches_and_threads_change_no_bit(system):
    ensemble = Ensemble(SYSTEMS[system], num_trajectories=5, resolution=17, num_frames=6)
    alone = list(solve_ensemble(ensemble, cells_per_batch=1))
    for how in ({"num_workers": 1}, {"num_workers": 2}, {"num_workers": 3, "cells_per_batch": 2 * 17**2}):
        np.testing.assert_array_equal(list(solve_ensemble(ensemble, **how)), alone)


def test_trajectories_continue_where_the_seeds_of_another_ensemble_end():
    all_five, last_two = (
        list(solve_ensemble(Ensemble(SYSTEMS["shallow_water"], count, 16, 4, first_seed=seed)))
        for count, seed in ((5, 0), (2, 3))
    )
    np.testing.assert_array_equal(all_five[3:], last_two)


def test_configs_read_back_tell_ensembles_apart(tmp_path):
    ensemble = Ensemble(SYSTEMS["diffusion_reaction"], num_trajectories=2, resolution=8, num_frames=3)
    configs = read_configs(written(tmp_path, ensemble))
    assert configs == ensemble.configs()
    for other in ({"num_trajectories": 3}, {"resolution": 9}, {"num_frames": 4}, {"first_seed": 1}):
        changed = {"num_trajectories": 2, "resolution": 8, "num_frames": 3} | other
        assert configs != Ensemble(ensemble.system, **changed).configs()


def test_broken_off_write_leaves_nothing(tmp_path):
    ensemble = Ensemble(SYSTEMS["shallow_water"], num_trajectories=3, resolution=8, num_frames=3)

    def broken():
        yield from list(solve_ensemble(ensemble))[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_ensemble(tmp_path / "file.h5", ensemble, broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"num_trajectories": 0}, "number of trajectories must be at least 1, got 0"),
        ({"resolution": 7}, "resolution must be at least 8, got 7"),
        ({"num_frames": 1}, "number of frames must be at least 2, got 1"),
        ({"first_seed": -1}, "first seed must be at least 0, got -1"),
    ],
)
def test_senseless_sizes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(SYSTEMS["shallow_water"], **size)
