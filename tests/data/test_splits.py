"""Splits, what the record of one knows again, and trajectories that were trained on, known by their first frames."""

import itertools
import shutil
from itertools import combinations

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset, split_set, splits
from matey.data.split_record import (
    RecordedParts,
    read_record,
    read_seen,
    record_split,
    seen_text,
    split_as_recorded,
    trained_on,
    twins_note,
)
from matey.data.splits import fingerprints, split_groups
from matey.data.to_the_well import write_the_well as convert
from matey.data.trajectories import TrajectorySet
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from tests.support.layout_files import write_the_well
from tests.support.small_files import write_swe


@pytest.mark.parametrize("num", [3, 4, 5, 10, 11, 1000])
@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01), (0.6, 0.4, 0.0)])
def test_a_split_covers_every_trajectory_once_and_leaves_no_wanted_part_empty(num, fractions):
    split = split_groups([[n] for n in range(num)], fractions, seed=1)
    parts = (split.train, split.valid, split.test)
    assert sorted(itertools.chain(*parts)) == list(range(num))
    for part, fraction in zip(parts, fractions, strict=True):
        assert (len(part) > 0) == (fraction > 0)
        assert abs(len(part) - fraction * num) < (1 if num >= 100 else 2)


def test_too_few_trajectories_to_split_says_how_many_are_needed():
    with pytest.raises(DataError, match="need at least 3 trajectories, one for each part, got 2; add data or set"):
        split_groups([[n] for n in range(2)], (0.8, 0.1, 0.1), seed=0)


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.3, -0.1), (0.5, 0.1, 0.1), (float("nan"), 0.5, 0.5)])
def test_fractions_that_are_no_fractions_are_refused(fractions):
    with pytest.raises(DataError, match="none negative and summing to 1, got"):
        split_groups([[n] for n in range(10)], fractions, seed=0)


def test_the_permutation_of_a_split_is_fixed_for_good():
    """A trained model's held-out trajectories must stay held out, whatever is changed here."""
    split = split_groups([[n] for n in range(10)], (0.6, 0.2, 0.2), seed=0)
    assert (split.train, split.valid, split.test) == ((2, 3, 4, 5, 6, 7), (0, 9), (1, 8))


def groups_of(*sizes):
    """Number trajectories group by group."""
    numbers = iter(range(sum(sizes)))
    return [[next(numbers) for _ in range(size)] for size in sizes]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [(1, 3, 3, 4, 6, 6, 7, 8, 8, 9, 11, 12, 15, 17, 20), (180, *20 * (1,)), (5, 2, 1)])
def test_groups_stay_whole_and_the_shares_hold_as_nearly_as_they_allow(sizes, seed):
    fractions, groups = (0.8, 0.1, 0.1), groups_of(*sizes)
    split = split_groups(groups, fractions, seed)
    parts = (split.train, split.valid, split.test)
    assert sorted(itertools.chain(*parts)) == list(range(sum(sizes))) and all(parts)
    assert all(sum(not set(group).isdisjoint(part) for part in parts) == 1 for group in groups)
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * sum(sizes)) <= 20


@pytest.fixture
def repeating(tmp_path):
    """Twelve trajectories; the odd ones among the first eight begin as the one before them does."""
    path = write_swe(tmp_path / "2D_rdb_NA_NA.h5", 12, num_frames=3)
    with h5py.File(path, "r+") as file:
        for number in (1, 3, 5, 7):
            file[f"{number:04d}/data"][:] = file[f"{number - 1:04d}/data"][:]
    return open_dataset(path)


def test_what_begins_alike_is_in_one_part(repeating):
    for seed in range(6):
        split = split_set(repeating, (0.5, 0.25, 0.25), seed)
        part_of = {n: part for part in ("train", "valid", "test") for n in getattr(split, part)}
        assert len(part_of) == 12 and all(part_of[n] == part_of[n + 1] for n in (0, 2, 4, 6))


def test_few_training_trajectories_are_different_ones_first(repeating):
    whole = split_set(repeating, (0.8, 0.1, 0.1), 0)
    different = len({n - n % 2 if n < 8 else n for n in whole.train})
    few = split_set(repeating, (0.8, 0.1, 0.1), 0, different)
    assert different < len(whole.train) and (few.valid, few.test) == (whole.valid, whole.test)
    assert len({n - n % 2 if n < 8 else n for n in few.train}) == different


@pytest.fixture
def well(tmp_path):
    """A data set of The Well: four trajectories to train on, two each to validate and test."""
    for part, name in (("train", "a"), ("train", "b"), ("valid", "a"), ("test", "a")):
        write_the_well(tmp_path / "flow" / "data" / part / f"{name}.hdf5")
    return tmp_path / "flow"


def test_a_set_with_splits_of_its_own_keeps_them_whatever_fractions_and_seed(well):
    for fractions, seed in (((0.8, 0.1, 0.1), 0), ((0.1, 0.1, 0.8), 3)):
        split = split_set(open_dataset(well), fractions, seed)
        assert (split.train, split.valid, split.test) == ((2, 3, 4, 5), (6, 7), (0, 1))


def test_a_part_that_is_asked_for_but_not_there_is_named(well):
    train = open_dataset(well / "data" / "train")
    with pytest.raises(
        DataError, match="test_flow has a split of its own, .*holds only train: expected some for valid; give"
    ):
        split_set(train, (0.8, 0.1, 0.1), 0)
    assert split_set(train, (1, 0, 0), 0).train == (0, 1, 2, 3)


def test_smaller_training_sets_are_nested_and_leave_the_test_set_alone(tmp_path):
    trajectories = open_dataset(write_swe(tmp_path / "2D_rdb_NA_NA.h5", 20, num_frames=2))
    whole = split_set(trajectories, (0.6, 0.2, 0.2), 3)
    parts = [split_set(trajectories, (0.6, 0.2, 0.2), 3, number) for number in range(1, 13)]
    for number, (few, more) in enumerate(itertools.pairwise([*parts, whole]), start=1):
        assert len(few.train) == number and set(few.train) <= set(more.train)
        assert (few.valid, few.test) == (whole.valid, whole.test)
    firsts = {split_set(trajectories, (0.6, 0.2, 0.2), seed, 1).train for seed in range(8)}
    assert len(firsts) > 2
    with pytest.raises(DataError, match="has 12 trajectories to train on, and data.trajectories asks for 13"):
        split_set(trajectories, (0.6, 0.2, 0.2), 3, 13)


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
    convert(data, split_set(data, *SPLIT), tmp_path / "well")
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
    monkeypatch.setattr(splits, "MOST_TRAJECTORIES", 2)
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
    monkeypatch.setattr(splits, "MOST_BYTES", 2 * 4 * 2 * 32 * 8 * 8 - 1)
    monkeypatch.setattr(splits, "OF_LARGE_FRAMES", 2 * 4 * 2 * 4 * 8 * 8)  # layers 14 to 17
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


PARTS = ((0.6, 0.2, 0.2), 3, None)


@pytest.fixture
def files(tmp_path):
    for seed, name in enumerate("abcdefghij"):
        write_swe(tmp_path / "swe" / f"{name}.h5", 1, num_frames=3, resolution=4, seed=seed)
    return tmp_path / "swe"


def record_of(files):
    data = open_dataset(files)
    return record_split([data], [split_set(data, *PARTS)], [{}], *PARTS)


def names(files, split):
    about = open_dataset(files).trajectories
    return [{about[number].source.name for number in part} for part in (split.train, split.valid, split.test)]


def test_a_record_is_read_as_it_was_written(files, tmp_path):
    record = record_of(files)
    (tmp_path / "split.jsonl").write_text(record.text())
    assert read_record(tmp_path / "split.jsonl") == record
    assert read_record(tmp_path / "none") is None


def test_what_was_held_out_stays_so_when_files_come(files):
    record = record_of(files)
    before = names(files, split_set(open_dataset(files), *PARTS))
    write_swe(files / "0.h5", 1, num_frames=3, resolution=4, seed=99)
    fresh = names(files, split_set(open_dataset(files), *PARTS))
    assert fresh[0] & before[2], "a new split would train on what was held out"
    after = names(files, split_as_recorded(RecordedParts(record), open_dataset(files), 0))
    assert after == [before[0] | {"0.h5"}, before[1], before[2]]


def test_changes_name_what_came_went_and_is_another(files):
    record = record_of(files)
    assert record.changes(record_of(files)) == ""
    for seed, name in enumerate("wxyz", start=20):
        write_swe(files / f"{name}.h5", 1, num_frames=3, resolution=4, seed=seed)
    for name in "bc":
        (files / f"{name}.h5").unlink()
    write_swe(files / "c.h5", 1, num_frames=4, resolution=4)
    changes = record.changes(record_of(files))
    place = str(files)
    assert changes == (
        f"data set 1 ({place}) came: {place}/w.h5, {place}/x.h5, {place}/y.h5 and 1 more, gone: {place}/b.h5, "
        f"changed: {place}/c.h5"
    )


def test_data_moved_as_a_whole_or_reached_through_a_link_is_the_same(files, tmp_path):
    record = record_of(files)
    (tmp_path / "link").symlink_to(files)
    assert record.changes(record_of(tmp_path / "link")) == ""
    moved = shutil.copytree(files, tmp_path / "moved")
    assert record.changes(record_of(moved)) == ""
    data = open_dataset(moved)
    assert split_as_recorded(RecordedParts(record), data, 0) == split_set(data, *PARTS)


def test_what_went_keeps_its_part_should_it_come_back(files, tmp_path):
    first = record_of(files)
    split = split_set(open_dataset(files), *PARTS)
    held_out = open_dataset(files).trajectories[split.test[0]].source
    held_out.rename(tmp_path / "aside.h5")
    data = open_dataset(files)
    second = record_split([data], [split_as_recorded(RecordedParts(first), data, 0)], [{}], *PARTS).with_what_went(
        first
    )
    assert second.changes(record_of(files)) == "", "accepted once, that is no news"
    (tmp_path / "aside.h5").rename(held_out)
    assert second.changes(record_of(files)).endswith(f"came: {held_out}")
    assert split_as_recorded(RecordedParts(second), open_dataset(files), 0) == split


@pytest.mark.parametrize("damage", ["", "{}\n", "\udcff", '{"set": 7, "file": "x", "bytes": 1, "content": "y"}\n'])
def test_a_damaged_record_says_what_it_was_for(files, tmp_path, damage):
    path = tmp_path / "split.jsonl"
    text = record_of(files).text().splitlines(keepends=True)[0] + damage if damage else damage
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="split.jsonl says what the run held out, and is corrupt; restore it"):
        read_record(path)
