"""What a run holds out stays held out: when it goes on, when it is evaluated, and when it is fine-tuned."""

import os
import shutil
from types import SimpleNamespace

import pytest

from matey.config import ConfigError, load_config
from matey.data import DataError, open_dataset
from matey.data.hdf5 import _handles
from matey.evaluate.held_out import hold_out
from matey.train.run_data import check_unseen, open_data
from tests.support.runs import pretrain
from tests.support.small_files import write_swe

SPLIT = {"split": [0.5, 0.25, 0.25]}


@pytest.fixture
def started(run_yaml, tmp_path):
    """A run of ten files that has started, and a function that opens its data as ``--resume`` does, with other values."""
    (tmp_path / "swe" / "2D_rdb_NA_NA.h5").unlink()
    for seed, name in enumerate("abcdefghij"):
        write_swe(tmp_path / "swe" / f"{name}.h5", 1, seed=seed)
    data = open_data(load_config(run_yaml(data=SPLIT)))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "split.jsonl").write_text(data.record.text())
    (tmp_path / "run" / "config.yaml").write_text("{}")

    def go_on(**changed):
        sections = {"data": SPLIT | changed, "output": {"dir": str(tmp_path / "run"), "resume": "auto"}}
        return open_data(load_config(run_yaml(**sections)))

    return SimpleNamespace(data=data, go_on=go_on, swe=tmp_path / "swe", record=tmp_path / "run" / "split.jsonl")


def held(data, part, index=0):
    about = data.sets[index].trajectories
    return {about[number].source.name for number in getattr(data.splits[index], part)}


def test_a_file_that_came_is_refused_by_name_with_the_key_that_accepts_it(started):
    write_swe(started.swe / "0.h5", 1, seed=99)
    with pytest.raises(
        ConfigError, match=r"split.jsonl says were split: data set 1 .* came: .*/0.h5\. Restore .* 'keep'"
    ):
        started.go_on()
    data = started.go_on(changed="keep")
    assert data.notes[0].startswith("Changed since the run was split: data set 1")
    for part in ("valid", "test"):
        assert held(data, part) == held(started.data, part)
    assert held(data, "train") == held(started.data, "train") | {"0.h5"}


@pytest.mark.parametrize("part", ["valid", "test"])
def test_what_was_held_out_stays_so_under_another_name_and_in_a_copy(started, part):
    first, second, *_ = sorted(held(started.data, part))
    (started.swe / first).rename(started.swe / "renamed.h5")
    shutil.copy(started.swe / second, started.swe / "copied.h5")
    data = started.go_on(changed="keep")
    assert held(data, part) == held(started.data, part) - {first} | {"renamed.h5", "copied.h5"}
    assert held(data, "train") == held(started.data, "train")
    assert data.notes[1].startswith("Held out, since they begin like what was held out before: ")
    assert "copied.h5" in data.notes[1] and "renamed.h5" in data.notes[1]
    started.record.write_text(data.record.text())
    again = started.go_on()
    assert again.splits == data.splits and again.notes == ()


def test_the_same_files_go_on_without_a_word(started):
    data = started.go_on()
    assert data.splits == started.data.splits and data.record == started.data.record and data.notes == ()


def test_values_that_changed_in_a_file_of_the_same_size_are_noticed(started):
    size = (started.swe / "c.h5").stat().st_size
    _handles.close_all()  # as in a process of its own
    write_swe(started.swe / "c.h5", 1, seed=99)
    assert (started.swe / "c.h5").stat().st_size == size
    with pytest.raises(ConfigError, match=r"data set 1 .* with other values: .*/c.h5\. Restore .* 'keep'"):
        started.go_on()
    data = started.go_on(changed="keep")
    assert data.splits == started.data.splits and "with other values: " in data.notes[0]
    started.record.write_text(data.record.text())
    assert started.go_on().notes == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"split_seed": 1}, "data.split_seed = 0, this one asks for 1"),
        ({"sets": [{"path": "{swe}/a.h5"}]}, "data set 1 .* gone: .*/b.h5"),
        ({"sets": [{"path": "{swe}"}, {"path": "{other}"}]}, "data set 2 .* came: .*/other.h5"),
    ],
)
def test_another_split_or_other_sets_are_refused(started, tmp_path, changed, words):
    other = write_swe(tmp_path / "other" / "other.h5", 4)
    for data in changed.get("sets", ()):
        data["path"] = data["path"].format(swe=started.swe, other=other)
    with pytest.raises(ConfigError, match=words):
        started.go_on(**changed)


def test_evaluation_scores_what_was_held_out_then(started, run_yaml):
    section = load_config(run_yaml(data=SPLIT)).data
    for seed, name in enumerate("0123456789", start=20):
        write_swe(started.swe / f"{name}.h5", 1, seed=seed)
    data = open_dataset(started.swe)
    fresh = hold_out([data], "test", 2, section, are_of_the_run=True)
    then = hold_out([data], "test", 2, section, started.data.record, are_of_the_run=True)
    names = [{data.trajectories[number].source.name for number in each.trajectories[0]} for each in (fresh, then)]
    assert names[1] == held(started.data, "test") and names[0] & held(started.data, "train")
    assert then.notes == ("shallow_water: 10 trajectories are in no part of the run's data and are left out.",)


def test_evaluation_refuses_where_what_was_held_out_has_gone(started, run_yaml):
    section = load_config(run_yaml(data=SPLIT)).data
    first, *rest = sorted(held(started.data, "test"))
    (started.swe / first).unlink()
    data = open_dataset(started.swe)
    with pytest.raises(
        DataError, match=f"not what it was in training: data set 1 .* gone: .*/{first}. Restore it, or .* --data"
    ):
        hold_out([data], "test", 2, section, started.data.record, are_of_the_run=True)
    named = hold_out([data], "test", 2, section, started.data.record)
    assert {data.trajectories[number].source.name for number in named.trajectories[0]} == set(rest)


def test_fine_tuning_may_not_hold_out_what_its_model_was_trained_on(started, run_yaml):
    record, same = started.data.record, started.data
    check_unseen(record, frozenset(), same.sets, same.splits, "old")
    check_unseen(None, frozenset(), same.sets, same.splits, "old")
    other = open_data(load_config(run_yaml(data=SPLIT | {"split_seed": 1})))
    with pytest.raises(
        ConfigError, match="old was trained on . of the trajectories .* data.split_seed 0, .*allow_seen"
    ):
        check_unseen(record, frozenset(), other.sets, other.splits, "old")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_what_is_trained_on_is_no_data_to_validate_on(run_yaml, tmp_path, link):
    (tmp_path / "other").mkdir()
    link(tmp_path / "swe" / "2D_rdb_NA_NA.h5", tmp_path / "other" / "fresh.h5")
    with pytest.raises(ConfigError, match="holds .*fresh.h5, which data.sets trains on"):
        open_data(load_config(run_yaml(data={"validate_on": [str(tmp_path / "other")]})))


def test_a_run_records_its_split_and_refuses_to_go_on_with_a_file_more(run_yaml, tmp_path):
    config = run_yaml()
    assert pretrain(config, "--set", "train.steps=2").returncode == 0
    assert "2D_rdb_NA_NA.h5" in (tmp_path / "run" / "split.jsonl").read_text()
    write_swe(tmp_path / "swe" / "later.h5", 10, seed=9)
    result = pretrain(config, "--resume")
    assert result.returncode == 2 and "came: " in result.stderr and "Traceback" not in result.stderr
    result = pretrain(config, "--resume", "--set", "data.changed=keep")
    assert result.returncode == 0, result.stderr
    assert "18/1/1 train/valid/test" in result.stdout
    assert result.stdout.count("Changed since the run was split: data set 1") == 1
    seen = tmp_path / "run" / "seen.txt"
    before = seen.read_text()
    (tmp_path / "swe" / "later.h5").unlink()
    assert pretrain(config, "--resume", "--set", "data.changed=keep").returncode == 0
    assert len(before.split()) == 18 and seen.read_text() == before, "what has gone was trained on all the same"
