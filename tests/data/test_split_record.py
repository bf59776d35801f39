"""What the record of a split knows again, and what it says of files that came, went and changed."""

import shutil

import pytest

from matey.data import DataError, open_dataset, split_set
from matey.data.split_record import RecordedParts, read_record, record_split, split_as_recorded
from tests.support.small_files import write_swe

SPLIT = ((0.6, 0.2, 0.2), 3, None)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("abcdefghij"):
        write_swe(tmp_path / "swe" / f"{name}.h5", 1, num_frames=3, resolution=4, seed=seed)
    return tmp_path / "swe"


def record_of(folder):
    data = open_dataset(folder)
    return record_split([data], [split_set(data, *SPLIT)], [{}], *SPLIT)


def names(folder, split):
    about = open_dataset(folder).trajectories
    return [{about[number].source.name for number in part} for part in (split.train, split.valid, split.test)]


def test_a_record_is_read_as_it_was_written(folder, tmp_path):
    record = record_of(folder)
    (tmp_path / "split.jsonl").write_text(record.text())
    assert read_record(tmp_path / "split.jsonl") == record
    assert read_record(tmp_path / "none") is None


def test_what_was_held_out_stays_so_when_files_come(folder):
    record = record_of(folder)
    before = names(folder, split_set(open_dataset(folder), *SPLIT))
    write_swe(folder / "0.h5", 1, num_frames=3, resolution=4, seed=99)
    fresh = names(folder, split_set(open_dataset(folder), *SPLIT))
    assert fresh[0] & before[2], "a new split would train on what was held out"
    after = names(folder, split_as_recorded(RecordedParts(record), open_dataset(folder), 0))
    assert after == [before[0] | {"0.h5"}, before[1], before[2]]


def test_changes_name_what_came_went_and_is_another(folder):
    record = record_of(folder)
    assert record.changes(record_of(folder)) == ""
    for seed, name in enumerate("wxyz", start=20):
        write_swe(folder / f"{name}.h5", 1, num_frames=3, resolution=4, seed=seed)
    for name in "bc":
        (folder / f"{name}.h5").unlink()
    write_swe(folder / "c.h5", 1, num_frames=4, resolution=4)
    changes = record.changes(record_of(folder))
    place = str(folder)
    assert changes == (
        f"data set 1 ({place}) came: {place}/w.h5, {place}/x.h5, {place}/y.h5 and 1 more, gone: {place}/b.h5, "
        f"changed: {place}/c.h5"
    )


def test_data_moved_as_a_whole_or_reached_through_a_link_is_the_same(folder, tmp_path):
    record = record_of(folder)
    (tmp_path / "link").symlink_to(folder)
    assert record.changes(record_of(tmp_path / "link")) == ""
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert record.changes(record_of(moved)) == ""
    data = open_dataset(moved)
    assert split_as_recorded(RecordedParts(record), data, 0) == split_set(data, *SPLIT)


def test_what_went_keeps_its_part_should_it_come_back(folder, tmp_path):
    first = record_of(folder)
    split = split_set(open_dataset(folder), *SPLIT)
    held_out = open_dataset(folder).trajectories[split.test[0]].source
    held_out.rename(tmp_path / "aside.h5")
    data = open_dataset(folder)
    second = record_split([data], [split_as_recorded(RecordedParts(first), data, 0)], [{}], *SPLIT).with_what_went(
        first
    )
    assert second.changes(record_of(folder)) == "", "accepted once, that is no news"
    (tmp_path / "aside.h5").rename(held_out)
    assert second.changes(record_of(folder)).endswith(f"came: {held_out}")
    assert split_as_recorded(RecordedParts(second), open_dataset(folder), 0) == split


@pytest.mark.parametrize("damage", ["", "{}\n", "\udcff", '{"set": 7, "file": "x", "bytes": 1, "content": "y"}\n'])
def test_a_damaged_record_says_what_it_was_for(folder, tmp_path, damage):
    path = tmp_path / "split.jsonl"
    text = record_of(folder).text().splitlines(keepends=True)[0] + damage if damage else damage
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="split.jsonl says what the run held out, and is corrupt; restore it"):
        read_record(path)
