"""examples/sweep.py searches settings of a run, ends trials that fall behind, and goes on with its study."""

import sys

import pytest

from matey.config import load_config
from tests.support.paths import ROOT
from tests.support.programs import start

pytest.importorskip("optuna", reason="the sweep needs Optuna: pip install optuna")
pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_trials_are_runs_with_other_settings_and_the_study_goes_on(run_yaml, tmp_path):
    command = [sys.executable, ROOT / "examples" / "sweep.py", "--config", run_yaml(), "--out", tmp_path / "sweep"]
    first, second = (start([*command, "--trials", count]) for count in (2, 1))
    assert first.returncode == 0 and "\nbest: --set train.learning_rate=" in first.stdout, first.stderr
    assert second.returncode == 0 and second.stdout.count("\ntrial ") + second.stdout.startswith("trial ") == 3
    trials = study_in(tmp_path / "sweep").trials
    rates = [
        load_config(tmp_path / "sweep" / f"trial_00{number}" / "config.yaml").train.learning_rate for number in range(3)
    ]
    assert rates == pytest.approx([trial.params["train.learning_rate"] for trial in trials], rel=1e-3)
    assert len({*rates}) == 3


def study_in(folder):
    import optuna

    return optuna.load_study(study_name="matey", storage=f"sqlite:///{folder}/study.db")
