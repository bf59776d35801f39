"""How commands begin and end."""

import pytest

from tests.support.paths import ROOT
from tests.support.programs import start_ranks


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("launch/*.py")) + sorted(ROOT.glob("tools/*.py")), ids=lambda path: path.stem
)
def test_every_command_lets_waiting_threads_sleep(path):
    text = path.read_text()
    assert any(begin in text for begin in ("@entry_point\ndef main", "    hold()", "    let_waiting_threads_sleep()"))


def test_several_ranks_say_a_mistake_once():
    result = start_ranks(2, "launch/predict.py", "--checkpoint", "nowhere", "--data", "x", "--out", "x.nc")
    assert result.returncode == 2 and result.stderr.count("error: There is no folder nowhere") == 1
