"""Trajectories that were trained on are known again by their first frames, and no others are taken for them."""

import shutil
from itertools import combinations

import h5py
import numpy as np
import pytest

from matey.data import open_dataset
from matey.data import splits as reading
from matey.data.split_record import read_seen, record_split, seen_text, trained_on, twins_note
from matey.data.splits import fingerprints, split_set
from matey.data.to_the_well import write_the_well
from matey.data.trajectories import TrajectorySet
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from tests.support.small_files import write_swe

SPLIT = ((0.5, 0.25, 0.25), 0, None)


def simulate(folder, first_seed, num_trajectories=4, num_frames=3):
    ensemble = SYSTEMS["diffusion_reaction"].ensemble(
        num_trajectories=num_trajectories, resolution=8, num_frames=num_frames, first_seed=first_seed
    )
    make(folder, ensemble)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set, the record of its split, and the fingerprints of what is trained on."""
    data = simulate(tmp_path_factory.mktemp("trained") / "data", first_seed=0, num_trajectories=8)
    split = split_set(data, *SPLIT)
    prints = [fingerprints(data, range(8))]
    return data, split, record_split([data], [split], prints, *SPLIT), seen_text(prints, [split.train])


@pytest.fixture
def known(trained, tmp_path):
    (tmp_path / "seen.txt").write_text(trained[3])
    return read_seen(tmp_path / "seen.txt")


def test_the_same_seeds_simulated_anew_are_known_again(trained, known, tmp_path):
    _, split, record, _ = trained
    anew = simulate(tmp_path / "anew", first_seed=2, num_trajectories=4, num_frames=5)
    expected = [number for number in range(4) if number + 2 in split.train]
    assert 0 < len(expected) < 4
    assert trained_on(anew, range(4), known, record) == trained_on(anew, range(4), known, None) == expected


def test_another_layout_of_the_same_simulation_is_known_again(trained, known, tmp_path):
    data = simulate(tmp_path / "data", first_seed=0, num_trajectories=8)
    write_the_well(data, split_set(data, *SPLIT), tmp_path / "well")
    well = open_dataset(tmp_path / "well")
    assert {about.source.suffix for about in well.trajectories} == {".hdf5"}
    assert len(trained_on(well, range(8), known, None)) == len(trained[1].train)


def test_other_seeds_of_the_same_sizes_are_not_taken_for_them(trained, known, tmp_path):
    other = simulate(tmp_path / "other", first_seed=100, num_trajectories=8)
    assert trained_on(other, range(8), known, trained[2]) == []
    # Without fingerprints, as where the run has lost its file of them, files of the same names and sizes pass for the same.
    assert trained_on(other, range(8), frozenset(), trained[2]) == list(trained[1].train)


def test_what_was_held_out_was_not_trained_on(trained, known):
    data, split, record, _ = trained
    assert trained_on(data, [*split.valid, *split.test], known, record) == []
    assert trained_on(data, range(8), known, record) == list(split.train)


def test_of_very_many_a_spread_is_read_and_the_record_tells_of_the_others(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_TRAJECTORIES", 2)
    data, split, record, _ = trained
    known = frozenset(seen_text([fingerprints(data, split.train)], [split.train]).split())
    assert len(known) == 2
    moved = shutil.copytree(data.sources[0].parent, tmp_path / "moved")
    assert trained_on(open_dataset(moved), split.train, known, record) == list(split.train)


def test_what_is_held_out_and_begins_as_trained_or_as_other_held_out_is_counted(trained, known, tmp_path):
    data, split, _, _ = trained
    assert twins_note(data, [*split.valid, *split.test], known, fingerprints(data, range(8))) == ""
    # On so coarse a grid, the released columns of all dam breaks are the same few cells.
    make(tmp_path, SYSTEMS["shallow_water"].ensemble(num_trajectories=8, resolution=8, num_frames=3))
    dams = open_dataset(tmp_path)
    prints = fingerprints(dams, range(8))
    seen = frozenset(prints[number] for number in range(6))
    assert len(seen) < 6
    assert twins_note(dams, [6, 7], seen, prints).startswith(
        "shallow_water: 2 of the 2 trajectories held out begin exactly as"
    )
    alike = next(pair for pair in combinations(range(8), 2) if prints[pair[0]] == prints[pair[1]])
    said = "shallow_water: different trajectories among those held out: 1 of 2; errors tell of these alone."
    assert twins_note(dams, alike, frozenset(), prints) == said


@pytest.fixture
def folder(tmp_path):
    return write_swe(tmp_path / "2D_rdb_NA_NA.h5", 8, num_frames=3, resolution=8).parent


def test_a_set_of_large_frames_is_read_as_far_as_bytes_allow(folder, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 3 * 2 * 4 * 8 * 8)  # three times two frames of a field
    assert list(fingerprints(open_dataset(folder), range(8))) == [0, 2, 5]


def test_first_frames_that_are_not_finite_have_no_fingerprint(folder):
    with h5py.File(folder / "2D_rdb_NA_NA.h5", "r+") as file:
        file["0001/data"][0, 0, 0, 0] = np.nan
    assert list(fingerprints(open_dataset(folder), range(3))) == [0, 2]


def test_trajectories_that_part_after_two_frames_have_one_fingerprint(folder):
    with h5py.File(folder / "2D_rdb_NA_NA.h5", "r+") as file:
        file["0001/data"][:2] = file["0000/data"][:2]
        file["0002/data"][:1] = file["0000/data"][:1]
    prints = fingerprints(open_dataset(folder), range(3))
    assert prints[0] == prints[1] != prints[2]


def test_of_frames_that_are_too_large_the_middle_is_read(monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 2 * 4 * 2 * 32 * 8 * 8 - 1)
    monkeypatch.setattr(reading, "OF_LARGE_FRAMES", 2 * 4 * 2 * 4 * 8 * 8)  # layers 14 to 17
    values = np.random.default_rng(0).random((4, 3, 32, 8, 8), dtype=np.float32)
    values[1:] = values[0]
    values[1, :, :14] += 1
    values[2, 1, 17, 7, 7] += 1
    values[3, 0, 0, 0, 0] = np.nan
    data = TrajectorySet.from_arrays(
        "gas", {"density": values, "pressure": -values}, spacing=(1, 1, 1), boundary=("open",) * 3
    )
    prints = fingerprints(data, range(4))
    assert prints[0] == prints[1] == prints[3] != prints[2]
