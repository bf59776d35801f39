"""What the points of a study were made with."""

import json
from datetime import date

import pytest

from matey.studies import made
from matey.studies.made import MADE, made_text, note_made, note_timed

pytestmark = pytest.mark.processes  # git says the commit


def test_points_of_one_version_and_machine_share_a_sentence(tmp_path):
    for name in "ab":
        note_made(tmp_path, name)
    facts = json.loads((tmp_path / MADE / "a.json").read_text())
    other = {**facts, "code": "commit 0123abc", "cores": 736, "processor": "Trento", "day": "2020-01-02"}
    (tmp_path / "points" / "c").mkdir(parents=True)
    (tmp_path / "points" / "c" / "made.json").write_text(json.dumps(other))  # where an earlier version wrote it
    first, second, both = made_text(tmp_path, "abcd").splitlines()  # of the last nothing is known
    day = date.today().isoformat()
    assert first == f"2 trainings by {facts['code']} on {facts['cores']} cores of {facts['processor']}, {day}."
    assert second == "1 training by commit 0123abc on 736 cores of Trento, 2020-01-02."
    assert both == "Costs are means over these machines."
    assert facts["code"].startswith(("commit ", "a copy of ")) and facts["processor"]


def test_a_training_that_is_continued_has_all_its_versions(tmp_path, monkeypatch):
    for code in ("commit 1", "commit 1", "commit 2"):
        monkeypatch.setattr(made, "_code", lambda code=code: code)
        note_made(tmp_path, "a")
    assert made_text(tmp_path, ["a"]).startswith("1 training by commit 1, then commit 2 on ")


def test_a_half_written_origin_is_unknown_and_written_again(tmp_path):
    note_made(tmp_path, "a")
    (tmp_path / MADE / "a.json").write_text('{"code": "com')
    assert made_text(tmp_path, ["a"]) == ""
    note_made(tmp_path, "a")
    assert made_text(tmp_path, ["a"]).startswith("1 training by ")


def test_times_that_are_measured_again_have_an_origin_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "_code", lambda: "commit 1")
    monkeypatch.setattr(made, "_processor", lambda: "Trento")
    for name in "ab":
        note_made(tmp_path, name)
    monkeypatch.setattr(made, "_code", lambda: "commit 2")
    monkeypatch.setattr(made, "_processor", lambda: "Rome")
    note_timed(tmp_path, "a")
    first, second, both = made_text(tmp_path, "ab").splitlines()
    assert first.startswith("2 trainings by commit 1 on ") and " Trento, " in first
    assert second.startswith("Times of 1 training measured again, in turn, by commit 2 on ") and " Rome, " in second
    assert both == "Costs are means over these machines."
    note_timed(tmp_path, "b")
    assert len(made_text(tmp_path, "ab").splitlines()) == 2  # the costs of both are now of one machine
    note_timed(tmp_path, "c")  # the origin of its training was lost
    assert "Times of 3 " in made_text(tmp_path, "abc")
    note_made(tmp_path, "b")  # trained anew: its times are those of the training
    assert "Times of 1 " in made_text(tmp_path, "ab")
