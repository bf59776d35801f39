"""Times the trained models of a study again, in turn: a machine whose speed changes then does so for all models alike."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from matey.checkpoints.find import find_checkpoint
from matey.studies.engine import draw
from matey.studies.folder import StudyError, check, check_trained, in_yaml
from matey.studies.made import note_timed
from matey.studies.pretraining.running import PretrainingStudy
from matey.studies.pretraining.table import Point

STEPS = 40  # of which `measure` leaves out those of the warm-up
SHORT = (f"train.steps={STEPS}", "train.warmup_steps=1", "train.validation_windows=1", "train.log_every=1")


def time_in_turn(study: PretrainingStudy) -> str:
    """Time steps and forecasts of the study's finished points again, one point after the other; return the text of the results.

    They are timed in the order in which they are trained: all models of a seed, then those of the next. So the quotient of two
    models is of times measured minutes apart, and its deviation over the seeds is that of the rounds.

    Raises:
        StudyError: no point is done, a point cannot be timed, or the folder holds another study.
    """
    check(study.out, study.facts, study.growing)
    done = [point for point in study.points if study.is_done(point)]
    if not done:
        raise StudyError(f"{study.out} has no finished training yet; start them without --time.")
    study.prepare(done)  # data may have been lost since
    for point in tqdm(done, desc="timing", unit="run", disable=None):
        _time(study, point)
    return draw(study)


def _time(study: PretrainingStudy, point: Point) -> None:
    """Time the steps of a short training of a point, and forecasts of its trained model; write its costs anew."""
    with TemporaryDirectory(prefix="timing-", dir=study.out) as name:
        folder = Path(name)
        study.train(point, f"output.dir={in_yaml(folder)}", *SHORT)
        check_trained(folder, study.launcher)
        before, now = (find_checkpoint(run)[0].num_ranks for run in (study.folder(point), folder))
        if before != now:
            raise StudyError(f"{point.name} was trained on {before} ranks, but timed on {now}; see --launcher.")
        study.measure(point, folder)
    note_timed(study.out, point.name)
