"""Splits: by permutation, or as the files say."""

import itertools

import h5py
import pytest

from matey.data import DataError, open_dataset, split_set
from matey.data.splits import split_groups
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
