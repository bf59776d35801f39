"""The work of a study on disk: its file of facts, and the commands that it runs."""

import json
import sys

import pytest

from matey.studies.folder import StudyError, call, check_trained, claim, config_fact
from tests.support.programs import stand_in

RANK = "trap 'sleep 0.7; echo saved >> saves; exit 75' TERM USR1; echo began >> saves; while :; do sleep 0.1; done"
LAUNCHERS = {
    "srun": f"({RANK}) & trap 'kill -KILL $!; exit 137' TERM; trap 'kill -USR1 $!' USR1; wait; wait $!",
    "deepspeed": f"({RANK}) & trap 'kill -TERM $!; exit 143' TERM; wait",
}


@pytest.mark.processes
def test_what_a_point_in_a_process_of_its_own_has_said_is_said_once(tmp_path):
    said = "p13 ended with code 1: error: no square (all of it in p13.txt); the same command continues from here."
    command = [sys.executable, "-c", f"import sys; sys.exit('error: {said}')"]
    with pytest.raises(StudyError) as raised:
        call(tmp_path, "p13", command, tmp_path)
    assert str(raised.value) == said


@pytest.mark.processes
def test_a_command_that_cannot_be_started_is_named(tmp_path):
    with pytest.raises(StudyError, match="p2 cannot be started: deepsped: No such file or directory; see --launcher"):
        call(tmp_path, "p2", ["deepsped", "--num_gpus", "8"], tmp_path)


@pytest.mark.processes
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_that_a_launcher_would_kill_or_leave_behind_save_before_a_call_ends(launcher, tmp_path):
    stand_in(tmp_path / launcher, LAUNCHERS[launcher])
    with pytest.raises(StudyError, match="was not finished in"):
        call(tmp_path, "p3", [str(tmp_path / launcher)], tmp_path, limit=1.5)
    assert (tmp_path / "saves").read_text() == "began\nsaved\n"


def test_deepspeeds_json_is_known_by_its_values(tmp_path):
    texts = ('{"a": 1, "b": 2}', '{ "a": 1,\n "b": 2 }', '{"a": 1, "b": 3}')
    facts = []
    for text in texts:
        (tmp_path / "zero.json").write_text(text)
        facts.append(config_fact(str(tmp_path / "zero.json")))
    assert facts[0] == facts[1] != facts[2] and facts[0].startswith("zero.json ")
    with pytest.raises(StudyError, match="--deepspeed_config nowhere.json cannot be read"):
        config_fact("nowhere.json")


def test_a_folder_of_another_study_without_trainings_may_be_removed(tmp_path):
    claim(tmp_path, {"study": "squares"})
    (tmp_path / "data").mkdir()
    with pytest.raises(StudyError, match="choose another --out, or remove .*, where nothing is trained yet."):
        claim(tmp_path, {"study": "cubes"})


def test_facts_that_grow_take_new_entries_and_no_other_values(tmp_path):
    claim(tmp_path, {"study": "squares", "of": {"2": "4"}}, ["of"])
    (tmp_path / "points" / "p2").mkdir(parents=True)
    claim(tmp_path, {"study": "squares", "of": {"3": "9"}}, ["of"])
    assert json.loads((tmp_path / "study.json").read_text()) == {"study": "squares", "of": {"2": "4", "3": "9"}}
    with pytest.raises(StudyError, match="holds a study with {'of 2': '4'}, this one has {'of 2': '5'}; choose"):
        claim(tmp_path, {"study": "squares", "of": {"2": "5", "4": "16"}}, ["of"])
    with pytest.raises(StudyError, match="holds a study with {'study': 'squares'}, this one has {'study': 'cubes'}"):
        claim(tmp_path, {"study": "cubes", "of": {"2": "4"}}, ["of"])
    claim(tmp_path, {"study": "squares", "of": {}, "since": "today"}, ["of"])  # which an earlier version did not write
    with pytest.raises(StudyError, match="holds a study with {'since': 'today'}, this one has {'since': 'later'}"):
        claim(tmp_path, {"study": "squares", "of": {}, "since": "later"}, ["of"])
    (tmp_path / "study.json").write_text('{"study": "squares", "of": ["2: 4"]}\n')  # as an earlier version wrote it
    with pytest.raises(StudyError, match="choose another --out"):
        claim(tmp_path, {"study": "squares", "of": {"2": "4"}, "made_of": "numbers"}, ["of"])


def test_who_reads_while_the_same_study_is_claimed_again_sees_all_of_its_file(tmp_path):
    claim(tmp_path, {"study": "squares"})
    before = (tmp_path / "study.json").stat().st_mtime_ns
    with (tmp_path / "study.json").open() as reader:
        claim(tmp_path, {"study": "squares"})
        assert json.load(reader) == {"study": "squares"}
    assert (tmp_path / "study.json").stat().st_mtime_ns == before


def test_a_call_that_came_to_nothing_does_not_keep_the_folder(tmp_path):
    claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})
    claim(tmp_path, {"study": "squares", "pretrained": "there"})
    (tmp_path / "points" / "p2").mkdir(parents=True)
    with pytest.raises(StudyError, match="holds a study with {'pretrained': 'there'}, this one has"):
        claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"3", b"[]", b"{}", None])
def test_a_file_of_a_study_that_cannot_be_read_is_named(content, tmp_path):
    (tmp_path / "points" / "p2").mkdir(parents=True)
    if content is not None:
        (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(StudyError, match="study.json cannot be read .*; restore it, or choose another --out"):
        claim(tmp_path, {"study": "squares"})


def test_a_command_that_trains_nothing_is_named(tmp_path):
    with pytest.raises(StudyError, match="'true' has ended without a training in .*; see --launcher"):
        check_trained(tmp_path, "true")
