"""What may not change the data of an ensemble, and what becomes of files that are there or half there.

What a write that is broken off leaves, where each trajectory has a file of its own.
"""

import h5py
import numpy as np
import pytest

from matey.simulate import mhd_cavity, thermals
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make, solve
from matey.simulate.layouts import unfinished
from tests.support.laws import law

DAM_BREAK = SYSTEMS["shallow_water"]
SINGLE_FILES = ("colliding_thermals", "mhd_cavity")
QUICK = (
    "shallow_water",
    "incompressible",
    "mhd_cavity",
)  # of which two are by PDEBench's and one by a layout of its own


def arrays(trajectories):
    return [np.concatenate([array.ravel() for array in trajectory.values()]) for trajectory in trajectories]


def contents(path):
    if path.suffix == ".nc":
        return path.read_bytes()
    found = {}
    with h5py.File(path) as file:
        found["/"] = sorted(file.attrs)
        file.visititems(lambda name, item: found.update({name: item[()] if isinstance(item, h5py.Dataset) else None}))
    return found


@law("system", SYSTEMS.own, quick=QUICK)
def test_batches_and_threads_change_no_bit(system):
    ensemble = SYSTEMS[system].ensemble(num_trajectories=5, resolution=16, num_frames=3)
    alone = arrays(solve(ensemble, ensemble.seeds, cells_per_batch=1))
    for how in ({"num_workers": 1}, {"num_workers": 2}, {"num_workers": 3, "cells_per_batch": 2 * 16**2}):
        np.testing.assert_array_equal(arrays(solve(ensemble, ensemble.seeds, **how)), alone)


@law("system", SYSTEMS.own, quick=QUICK)
def test_a_run_that_broke_off_goes_on_to_the_same_files(system, tmp_path):
    ensemble = SYSTEMS[system].ensemble(num_trajectories=3, resolution=16, num_frames=3)
    solved = []

    def breaking(trajectories, number):
        for trajectory in trajectories:
            if len(solved) == 2:
                raise KeyboardInterrupt
            solved.append(number)
            yield trajectory

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "broken", ensemble, show=breaking)
    solved[:] = [None]  # let one more pass
    resumed = make(tmp_path / "broken", ensemble, show=breaking)
    assert solved == [None, 1]  # one was left to solve
    for path in resumed:
        (whole,) = (other for other in make(tmp_path / path.stem, ensemble) if other.name == path.name)
        np.testing.assert_equal(contents(path), contents(whole))
        assert not unfinished(path).exists()


def test_half_a_file_of_another_ensemble_is_begun_anew(tmp_path):
    def one(trajectories, number):
        yield next(trajectories)
        raise KeyboardInterrupt

    sizes = {"num_trajectories": 2, "resolution": 16, "num_frames": 3}
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, DAM_BREAK.ensemble(**sizes, first_seed=7), show=one)
    (path,) = make(tmp_path, DAM_BREAK.ensemble(**sizes))
    (other,) = make(tmp_path / "whole", DAM_BREAK.ensemble(**sizes))
    np.testing.assert_equal(contents(path), contents(other))


@law("system", SYSTEMS.own, quick=QUICK)
def test_a_file_is_known_again_and_told_from_that_of_another_ensemble(system, tmp_path):
    sizes = {"num_trajectories": 2, "resolution": 16, "num_frames": 3}
    ensemble = SYSTEMS[system].ensemble(**sizes)
    make(tmp_path, ensemble)
    layout = ensemble.system.layout
    others = [{}, {"resolution": 18}, {"num_frames": 4}]
    if system not in SINGLE_FILES:  # where trajectories share a file, it matters which ones
        others += [{"num_trajectories": 3}, {"first_seed": 1}]
    for other in others:
        changed = SYSTEMS[system].ensemble(**(sizes | other))
        known = [
            layout.holds(tmp_path / name, changed, seeds)
            for name, seeds in layout.files(changed).items()
            if (tmp_path / name).exists()
        ]
        if other == {}:
            assert known and all(known)
        else:
            assert not any(known)


@pytest.mark.parametrize(
    ("system", "layout", "names"),
    [
        ("mhd_cavity", mhd_cavity.LAYOUT, ("velocity", "magnetic")),
        ("mhd_cavity", mhd_cavity.ARRAYS, ("velocity", "magnetic")),
        ("colliding_thermals", thermals.LAYOUT, thermals.VARIABLES),
    ],
)
def test_a_write_that_is_broken_off_leaves_nothing(tmp_path, system, layout, names):
    ensemble = SYSTEMS[system].ensemble(num_trajectories=1, resolution=32, num_frames=2)
    broken = {name: np.full((2, 1, 1, 1)[: 4 if system == "mhd_cavity" else 3], "no numbers") for name in names}
    with pytest.raises((ValueError, TypeError)):
        layout.write(tmp_path / layout.name(0), ensemble, [0], [broken])
    assert list(tmp_path.iterdir()) == []
