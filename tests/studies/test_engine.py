"""The engine of all studies, with one whose trainings take no time: each writes the square of its number."""

import csv
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from matey.studies.engine import RunnableStudy, draw, run_one, run_study
from matey.studies.folder import StudyError
from matey.train.folder import FileLock
from tests.support.paths import ROOT

SCRIPT = """
import json, pathlib, sys
out, (flag, name) = pathlib.Path(sys.argv[1]), sys.argv[-2:]
if name in ("p13", "p26"):
    sys.exit("error: thirteen has no square here")
(out / "points" / name).mkdir(parents=True, exist_ok=True)
(out / "points" / name / "result.json").write_text(json.dumps(int(name[1:]) ** 2))
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


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def name(self):
        return f"p{self.value}"


class Squares(RunnableStudy[Number]):
    last_written = "result.json"

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
        self.folder(point).mkdir(parents=True, exist_ok=True)
        self.finish(point, point.value**2)

    def rows_of(self, point):
        return [{"value": point.value, "square": json.loads((self.folder(point) / self.last_written).read_text())}]

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
    longer = Squares(tmp_path / "study", [2, 3, 4])
    text = run_study(longer, [], jobs=1)
    assert text.startswith("2: 4, 3: 9, 4: 16\n\n3 trainings by ") and longer.ran == [4]
    assert results(tmp_path / "study") == [(2, 4), (3, 9), (4, 16)]
    assert (tmp_path / "study" / "results.txt").read_text() == f"{text}\n"
    assert (tmp_path / "study" / "results.png").stat().st_size > 0


@pytest.mark.processes  # git says the commit
def test_the_figure_says_the_code_and_the_machine_of_its_points(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matey.studies.engine.write_png", lambda figure, *_: drawn.append(figure.get_suptitle()))
    text = run_study(Squares(tmp_path / "study", [2, 3]), [], jobs=1)
    assert drawn[-1].startswith("2 trainings by ") and text.endswith(drawn[-1])


@pytest.mark.processes
def test_several_points_at_a_time_run_in_processes_of_their_own(tmp_path, command):
    study = Squares(tmp_path / "study", [5, 6, 7])
    assert (
        run_study(study, command, jobs=2) == "5: 25, 6: 36, 7: 49"
    )  # by no command of ours, which would say what made them
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


@pytest.mark.processes
def test_a_single_point_that_fails_says_why(tmp_path, command):
    expected = r"^p13 ended with code 1: error: thirteen has no square here \(all of it in "
    with pytest.raises(StudyError, match=expected):
        run_study(Squares(tmp_path / "study", [13]), command, jobs=2)


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

    class Slow(Squares):
        def run_point(self, point):
            super().run_point(point)
            if point.value == 5:  # meanwhile, another call finishes the next one
                self.folder(Number(6)).mkdir(parents=True)
                self.finish(Number(6), 36)

    slow = Slow(tmp_path / "slow", [5, 6])
    assert run_study(slow, [], jobs=1).startswith("5: 25, 6: 36\n") and slow.ran == [5]


@pytest.mark.processes  # git says the commit
def test_what_is_done_can_be_drawn_without_running_the_rest(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    with pytest.raises(StudyError, match="has no finished training yet; start them without --draw"):
        draw(study)
    run_one(study, "p3")
    assert draw(study).startswith("3: 9\n") and results(tmp_path / "study") == [(3, 9)] and study.ran == [3]


@pytest.mark.parametrize("text", ["", '"a text"'])
@pytest.mark.processes  # git says the commit
def test_a_finished_point_whose_files_are_lost_is_named(tmp_path, text):
    class Told(Squares):
        def rows_of(self, point):
            (row,) = super().rows_of(point)
            return [row | {"length": row["square"].bit_length()}]

    study = Told(tmp_path / "study", [2, 3])
    run_study(study, [], jobs=1)
    (study.folder(Number(3)) / "result.json").write_text(text)
    with pytest.raises(
        StudyError, match="points/p3 is of a finished training, but cannot be read .*restore its files, or"
    ):
        draw(study)


@pytest.mark.processes  # git says the commit
def test_one_point_alone_is_run_once_and_draws_nothing(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    run_one(study, "p3")
    run_one(study, "p3")
    assert study.ran == [3] and study.prepared == 1
    assert sorted(Path(path).name for path in (tmp_path / "study").iterdir()) == ["made", "points", "study.json"]
    with pytest.raises(StudyError, match="--point: the study has no point 'p4'; --list names them."):
        run_one(study, "p4")


def test_a_folder_that_holds_another_study_is_refused(tmp_path):
    (tmp_path / "study" / "points" / "p3").mkdir(parents=True)
    (tmp_path / "study" / "study.json").write_text('{"study": "cubes"}\n')
    with pytest.raises(StudyError, match="holds a study with {'study': 'cubes'}"):
        run_study(Squares(tmp_path / "study", [2]), [], jobs=1)


@pytest.mark.processes  # git says the commit
def test_a_study_that_is_done_makes_no_inputs_again(tmp_path):
    run_study(Squares(tmp_path / "study", [2, 3]), [], jobs=1)
    again = Squares(tmp_path / "study", [2, 3])
    run_study(again, [], jobs=1)
    assert again.prepared == 0 and again.ran == []


def test_the_last_file_of_a_point_is_replaced_as_a_whole(tmp_path):
    study = Squares(tmp_path, [2])
    study.folder(Number(2)).mkdir(parents=True)
    study.finish(Number(2), {"seconds": 1})
    with (study.folder(Number(2)) / "result.json").open() as reader:
        study.finish(Number(2), {"seconds": 2})
        assert json.load(reader) == {"seconds": 1}
