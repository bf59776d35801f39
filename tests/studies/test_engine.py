"""The engine of all studies, with one whose trainings take no time; tables and plots."""

import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from matey.studies.cases import StudyError
from matey.studies.engine import Study, call, claim, run_study, write_jobs
from matey.studies.table import Column, Panel, errors_of, results_table
from tests.support.programs import forked, stand_in

RANK = "trap 'sleep 0.7; echo saved >> saves; exit 75' TERM USR1; echo began >> saves; while :; do sleep 0.1; done"
LAUNCHERS = {
    "srun": f"({RANK}) & trap 'kill -KILL $!; exit 137' TERM; trap 'kill -USR1 $!' USR1; wait; wait $!",
    "deepspeed": f"({RANK}) & trap 'kill -TERM $!; exit 143' TERM; wait",
}
CALL = """
import signal, sys
from pathlib import Path
from matey.studies.engine import call
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests behind `&` ignore
folder = Path(sys.argv[1]).parent
call(folder, "p3", [sys.argv[1]], folder)
"""


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def name(self):
        return f"p{self.value}"


class Squares(Study[Number]):
    columns = {"square": Column("square", "{:.0f}")}

    def __init__(self, out, values):
        for name, value in {"out": out, "work": out.parent, "points": [Number(each) for each in values]}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "ran", [])
        object.__setattr__(self, "prepared", [])

    @property
    def facts(self):
        return {"study": "squares"}

    def plan(self):
        return f"{len(self.points)} squares"

    def prepare(self, points):
        self.prepared.append(len(points))

    def run_point(self, point):
        if point.value % 13 == 0:
            raise StudyError(f"{point.name} ended with no square.")
        self.ran.append(point.value)
        return [{"series": "n", "label": str(point.value), "seed": 0, "square": point.value**2}]

    def panels(self, rows):
        return [[Panel(rows, "label", "n", "square", "square")]]


@pytest.fixture
def without_plot(monkeypatch):
    """Studies draw nothing, which takes most of their time."""
    monkeypatch.setattr("matey.studies.engine.write_png", lambda figure, path: None)


def results(out):
    with (out / "results.csv").open() as file:
        return [(int(row["label"]), int(row["square"])) for row in csv.DictReader(file)]


@pytest.mark.processes  # git says the commit
def test_a_study_runs_what_is_not_done_and_writes_table_text_and_plot(tmp_path):
    first = Squares(tmp_path / "study", [2, 3])
    run_study(first)
    assert first.ran == [2, 3]
    longer = Squares(tmp_path / "study", [2, 4])  # of another call, which names fewer points
    text = run_study(longer)
    assert (longer.ran, longer.prepared) == ([4], [1]) and "3 trainings by commit" in text
    run_study(longer)
    assert longer.prepared == [1] and results(tmp_path / "study") == [(2, 4), (4, 16), (3, 9)]
    assert (tmp_path / "study" / "results.txt").read_text() == f"{text}\n"
    assert (tmp_path / "study" / "results.png").stat().st_size > 0


@pytest.mark.processes  # git says the commit
@pytest.mark.usefixtures("without_plot")
def test_points_that_fail_are_named_at_the_end_and_all_others_are_run(tmp_path):
    study = Squares(tmp_path / "study", [13, 5, 26, 6])
    with pytest.raises(StudyError, match="^2 of 4 trainings are not done: p13 ended .* p26 ended"):
        run_study(study)
    assert study.ran == [5, 6] and results(tmp_path / "study") == [(5, 25), (6, 36)]


@pytest.mark.processes  # git says the commit
@pytest.mark.usefixtures("without_plot")
def test_a_point_that_another_call_runs_or_has_run_is_not_run_again(tmp_path):
    study = Squares(tmp_path / "study", [2, 3])
    study.folder(Number(2)).parent.mkdir(parents=True)
    take = "import sys; from pathlib import Path; from matey.train.folder import FileLock; FileLock(Path(sys.argv[1])).take()"
    command = [sys.executable, "-c", f"{take}; print(flush=True); input()", study.folder(Number(2))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(
            StudyError, match="p2 is being trained by another call; the same command continues from here"
        ):
            run_study(study)
        other.communicate(b"\n", timeout=60)
    run_study(study, only="p3")
    assert study.ran == [3]
    run_study(study, only="p2")
    assert study.ran == [3, 2] and results(tmp_path / "study") == [(2, 4), (3, 9)]
    with pytest.raises(StudyError, match="--point: the study has no point 'p4'; it has p2, p3."):
        run_study(study, only="p4")


@pytest.mark.processes
@pytest.mark.usefixtures("without_plot")
def test_a_script_submits_what_is_not_done_with_the_users_options(tmp_path, monkeypatch):
    study = Squares(tmp_path / "a study", [2, 3, 4])
    run_study(study, only="p3")
    stand_in(tmp_path / "bin" / "sbatch", 'printf "%s|" "$PWD" "$@"; echo')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = write_jobs(study, ["python", "reproduce.py", "squares", "--out", "a b"])
    said = subprocess.run(["bash", path, "-AX"], capture_output=True, text=True, check=True).stdout
    first, second = (line.split("|") for line in said.splitlines())
    log = tmp_path / "a study" / "logs" / "p2.txt"
    words = ["--job-name=matey-squares-p2", f"--output={log}", "--open-mode=append", "-AX", "--wrap"]
    assert first[:-2] == [str(tmp_path), *words] and "p4" in second[1]
    assert first[-2] == "exec python reproduce.py squares --out 'a b' --point p2" and log.parent.is_dir()


@pytest.mark.processes
def test_a_command_that_cannot_be_started_is_named(tmp_path):
    with pytest.raises(StudyError, match="p2 cannot be started: deepsped: No such file or directory; see --launcher"):
        call(tmp_path, "p2", ["deepsped", "--num_gpus", "8"], tmp_path)


@pytest.mark.processes
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_that_a_launcher_would_kill_or_leave_behind_save_before_a_study_ends(launcher, tmp_path):
    stand_in(tmp_path / launcher, LAUNCHERS[launcher])
    saves, until = tmp_path / "saves", time.monotonic() + 240
    with (
        (tmp_path / "said").open("w+b") as said,
        forked([sys.executable, "-c", CALL, str(tmp_path / launcher)], said) as study,
    ):
        while not saves.exists():
            assert study.poll() is None and time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.05)
        time.sleep(0.5)  # a signal just before the call to wait would wake nobody
        os.kill(study.pid, signal.SIGINT)
        study.wait(60)
    assert saves.read_text() == "began\nsaved\n" and "KeyboardInterrupt" in (tmp_path / "said").read_text()


def test_a_folder_of_another_study_is_refused_once_it_has_trainings(tmp_path):
    claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})
    claim(tmp_path, {"study": "squares", "pretrained": "there"})  # the first came to nothing
    (tmp_path / "points" / "p2").mkdir(parents=True)
    with pytest.raises(StudyError, match="holds a study with {'pretrained': 'there'}, this one has {'pretrained': 'no"):
        claim(tmp_path, {"study": "squares", "pretrained": "nowhere"})


COLUMNS = {"tokens": Column("tokens", "{:.0f}", 1e-3), "seconds": Column("step", "{:.1f} s")}


def rows_of(models, systems=("a", "b"), seeds=(0, 1)):
    """Rows of two systems, of which the second has twice the error, as the second seed has."""
    return [
        {"series": series, "label": label, "seed": seed, "system": system, "forecast": forecast}
        | {"ratio": error * (1 + seed) * 2**number * lead, "tokens": tokens, "seconds": tokens / 10e3 + seed}
        for series, label, error, tokens in models
        for seed in seeds
        for number, system in enumerate(systems)
        for forecast, lead in (("lead 1", 1), ("lead 5", 2))
    ]


ROWS = rows_of([("uniform", "16", 0.1, 10e3), ("uniform", "8", 0.05, 40e3)])


def cells(line):
    return re.split("  +", line)


def test_an_error_is_the_geometric_mean_over_the_systems_of_each_seed():
    own = [row for row in ROWS if row["label"] == "16" and row["forecast"] == "lead 1"]
    assert errors_of(own) == pytest.approx({0: math.sqrt(2) * 0.1, 1: 2 * math.sqrt(2) * 0.1})


def test_the_table_has_means_and_deviations_over_the_seeds():
    head, _, first, second = results_table(ROWS, COLUMNS).splitlines()
    assert head.split() == ["tokens", "step", "lead", "1", "lead", "5", "seeds"]
    assert cells(first) == ["uniform, 16", "10", "1.5 s", "0.212 ± 0.100", "0.424 ± 0.200", "2"]
    apart = results_table(ROWS, COLUMNS, by_system=True).splitlines()
    assert cells(apart[2])[3:5] == ["0.150 ± 0.071", "0.300 ± 0.141"] and "b, lead 5" in apart[0]
    lost = [{**row, "ratio": math.inf, "tokens": None} for row in ROWS[:8]]
    assert cells(results_table(lost, COLUMNS).splitlines()[2])[1:4] == ["-", "1.5 s", "diverged"]
