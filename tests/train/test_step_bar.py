"""What a log shows of a run's progress."""

import io
import sys

from tqdm import tqdm

from matey.train import loop as module
from matey.train.loop import step_bar


def test_in_a_log_each_drawing_is_a_line_of_its_own_and_others_begin_theirs(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    bar = step_bar(3, 1, is_shown=True)
    bar.update()
    tqdm.write("Step 2: validated", file=log)
    bar.close()
    log.write("Asked to stop\n")
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue() and lines[-1] == "Asked to stop" and "Step 2: validated" in lines
    assert [line.split("|")[-1].split()[0] for line in lines if "|" in line] == ["1/3", "2/3", "2/3", "2/3"]


def test_in_a_log_lines_are_half_a_minute_apart(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    bar = step_bar(100, 0, is_shown=True)
    for _ in range(100):
        bar.update()
    assert len(log.getvalue().splitlines()) == 1
    bar.close()


def test_other_ranks_show_nothing(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    bar = step_bar(3, 0, is_shown=False)
    bar.update()
    bar.close()
    assert not log.getvalue()
