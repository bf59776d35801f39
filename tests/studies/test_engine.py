"""The engine of all studies, with one whose trainings take no time: each writes the square of its number."""

import csv
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from matey.studies.cases import StudyError
from matey.studies.engine import ROWS, RunnableStudy, call, claim, draw, run_one, run_study
from matey.train.folder import FileLock
from tests.support.paths import ROOT
from tests.support.programs import stand_in

SCRIPT = """
import json, pathlib, sys
out, (flag, name) = pathlib.Path(sys.argv[1]), sys.argv[-2:]
if name in ("p13", "p26"):
    sys.exit("error: thirteen has no square here")
(out / "points" / name).mkdir(parents=True, exist_ok=True)
rows = [{"value": int(name[1:]), "square": int(name[1:]) ** 2}]
(out / "points" / name / "rows.json").write_text(json.dumps({"made": "hand", "rows": rows}))
"""

STUDY = """
import runpy, sys
from pathlib import Path
from matey.studies.engine import run_study
from matey.process.signals import interrupt_at_signals
Squares = runpy.run_path(sys.argv[3])["Squares"]
interrupt_at_signals()
run_study(Squares(Path(sys.argv[1], "study"), [5, 6, 7]), [sys.executable, sys.argv[2], sys.argv[1]], 2)
"""
STOPPED = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
point = pathlib.Path(sys.argv[1], sys.argv[-1])
try:
    point.with_suffix(".started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    point.with_suffix(".saved").touch()
"""
RANK = "trap 'sleep 0.7; echo saved >> saves; exit 75' TERM USR1; echo began >> saves; while :; do sleep 0.1; done"
LAUNCHERS = {
    "srun": f"({RANK}) & trap 'kill -KILL $!; exit 137' TERM; trap 'kill -USR1 $!' USR1; wait; wait $!",
    "deepspeed": f"({RANK}) & trap 'kill -TERM $!; exit 143' TERM; wait",
}


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def name(self):
        return f"p{self.value}"


class Squares(RunnableStudy[Number]):
    def __init__(self, out, values):
        self.out, self.work, self.points = out, out.parent, [Number(value) for value in values]
        self.ran, self.prepared = [], 0

    @property
    def facts(self):
        return {"study": "squares"}

    def plan(self):
        return f"{len(self.points)} squares"

    def prepare(self, points):
        self.prepared += 1

    def run_point(self, point):
        if point.value % 13 == 0:
            raise StudyError(f"{point.name} ended with no square.")
        self.ran.append(point.value)
        return [{"value": point.value, "square": point.value**2}]

    def text(self, rows):
        return ", ".join(f"{row['value']}: {row['square']}" for row in rows)

    def figure(self, rows):
        return Figure()


def results(out):
    with (out / "results.csv").open() as file:
        return [(int(row["value"]), int(row["square"])) for row in csv.DictReader(file)]


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "square.py"
    script.write_text(SCRIPT)
    return [sys.executable, str(script), str(tmp_path / "study")]


@pytest.mark.processes  # git says the commit
def test_a_study_runs_what_is_not_done_and_writes_table_text_and_plot(tmp_path):
    first = Squares(tmp_path / "study", [2, 3])
    assert run_study(first, [], jobs=1).startswith("2: 4, 3: 9\n\n2 trainings by ") and first.ran == [2, 3]
    longer = Squares(tmp_path / "study", [2, 4])  # of another call, which names fewer points
    text = run_study(longer, [], jobs=1)
    assert text.startswith("2: 4, 4: 16, 3: 9\n\n3 trainings by ") and (longer.ran, longer.prepared) == ([4], 1)
    run_study(longer, [], jobs=1)
    assert longer.prepared == 1
    assert results(tmp_path / "study") == [(2, 4), (4, 16), (3, 9)]
    assert (tmp_path / "study" / "results.txt").read_text() == f"{text}\n"
    assert (tmp_path / "study" / "results.png").stat().st_size > 0


@pytest.mark.processes
def test_several_points_at_a_time_run_in_processes_of_their_own(tmp_path, command):
    study = Squares(tmp_path / "study", [5, 6, 7])
    assert run_study(study, command, jobs=2) == "5: 25, 6: 36, 7: 49\n\n3 trainings by hand."
    assert study.ran == [] and study.prepared == 1 and results(tmp_path / "study") == [(5, 25), (6, 36), (7, 49)]


@pytest.mark.processes
@pytest.mark.parametrize("jobs", [1, 2])
def test_points_that_fail_are_named_at_the_end_and_all_others_are_run(tmp_path, command, jobs):
    study = Squares(tmp_path / "study", [13, 5, 26, 6])
    with pytest.raises(StudyError, match="^2 of 4 trainings are not done: ") as raised:
        run_study(study, command, jobs)
    assert sorted(re.findall(r"p\d+ ended", str(raised.value))) == ["p13 ended", "p26 ended"]
    assert [point.value for point in study.points if study.is_done(point)] == [5, 6]
    assert results(tmp_path / "study") == [(5, 25), (6, 36)]


@pytest.mark.processes
def test_an_interrupt_asks_the_running_points_to_save_and_waits_for_them(tmp_path):
    """The signal reaches the study's process alone."""
    point = tmp_path / "point.py"
    point.write_text(STOPPED)
    study = subprocess.Popen([sys.executable, "-c", STUDY, tmp_path, point, __file__], cwd=ROOT, stderr=subprocess.PIPE)
    started = [tmp_path / f"{name}.started" for name in ("p5", "p6")]
    end = time.monotonic() + 60
    while not all(path.exists() for path in started):
        assert study.poll() is None and time.monotonic() < end and time.sleep(0.05) is None
    study.terminate()
    _, said = study.communicate(timeout=60)
    assert said.decode().endswith("KeyboardInterrupt\n")
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["p5.saved", "p6.saved"]
    assert not (tmp_path / "p7.started").exists()


@pytest.mark.processes  # git says the commit
def test_a_point_that_another_call_runs_or_has_run_is_not_run_again(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    lock = FileLock(study.folder(Number(2)))
    lock.take()
    for run in (lambda: run_one(study, "p2"), lambda: run_study(study, [], jobs=1)):
        with pytest.raises(
            StudyError, match="p2 is being trained by another call; the same command continues from here"
        ):
            run()
    lock.release()
    assert study.ran == [3] and run_study(study, [], jobs=1).startswith("2: 4, 3: 9\n")


@pytest.mark.processes  # git says the commit
def test_what_is_done_can_be_drawn_without_running_the_rest(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    with pytest.raises(StudyError, match="has no finished training yet; start them without --draw"):
        draw(study)
    run_one(study, "p3")
    assert draw(study).startswith("3: 9\n") and results(tmp_path / "study") == [(3, 9)] and study.ran == [3]


@pytest.mark.processes  # git says the commit
def test_one_point_alone_is_run_once_and_draws_nothing(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    run_one(study, "p3")
    run_one(study, "p3")
    assert study.ran == [3] and study.prepared == 1
    assert sorted(Path(path).name for path in (tmp_path / "study").iterdir()) == ["points", "study.json"]
    with pytest.raises(StudyError, match="--point: the study has no point 'p4'; --list names them."):
        run_one(study, "p4")


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


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", None])
def test_a_file_of_a_study_that_cannot_be_read_is_named(content, tmp_path):
    (tmp_path / "points" / "p2").mkdir(parents=True)
    if content is not None:
        (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(StudyError, match="study.json cannot be read .*; restore it, or choose another --out"):
        claim(tmp_path, {"study": "squares"})


def test_a_folder_of_another_study_is_refused_once_it_has_trainings(tmp_path):
    claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})
    claim(tmp_path, {"study": "squares", "pretrained": "there"})  # the first came to nothing
    (tmp_path / "points" / "p2").mkdir(parents=True)
    with pytest.raises(StudyError, match="holds a study with {'pretrained': 'there'}, this one has {'pretrained': 'no"):
        claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})


@pytest.mark.processes  # git says the commit
def test_a_finished_point_whose_rows_cannot_be_read_is_named(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    run_study(study, [], jobs=1)
    (study.folder(Number(3)) / ROWS).write_text("")
    with pytest.raises(StudyError, match="points/p3/rows.json cannot be read .*; remove it"):
        draw(study)
