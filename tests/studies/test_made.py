"""What the points of a study were made with."""

import json
from datetime import date

import pytest

from matey.studies.made import MADE, made_text, note_made


@pytest.mark.processes  # git says the commit
def test_points_of_one_version_and_machine_share_a_sentence(tmp_path):
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        note_made(folder)
    facts = json.loads((folders[0] / MADE).read_text())
    other = {**facts, "code": "commit 0123abc", "cores": 736, "processor": "Trento", "day": "2020-01-02"}
    (folders[2] / MADE).write_text(json.dumps(other))
    first, second = made_text(folders).splitlines()  # of the last nothing is known
    day = date.today().isoformat()
    assert first == f"2 trainings by {facts['code']} on {facts['cores']} cores of {facts['processor']}, {day}."
    assert second == "1 trainings by commit 0123abc on 736 cores of Trento, 2020-01-02."
    assert facts["code"].startswith(("commit ", "a copy of ")) and facts["processor"]
