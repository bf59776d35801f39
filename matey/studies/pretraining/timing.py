"""Times the trained models of a study again, in turn: a machine whose speed changes then does so for all models alike."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from matey.checkpoints.source import find_checkpoint
from matey.mistakes import Mistake
from matey.studies.engine import draw, rows_of_done
from matey.studies.folder import StudyError, check, check_trained, in_yaml
from matey.studies.made import note_timed
from matey.studies.pretraining.costs import Costs
from matey.studies.pretraining.running import PretrainingStudy
from matey.studies.pretraining.table import Point
from matey.train.folder import FileLock, LockedError

STEPS = 40  # of which `measure` leaves out those of the warm-up
SHORT = (f"train.steps={STEPS}", "train.warmup_steps=1", "train.validation_windows=1", "train.log_every=1")
PREFIX = "timing-"


def time_in_turn(study: PretrainingStudy) -> str:
    """Time steps and forecasts of all finished points in the folder again, one after the other; return the text of the results.

    They are timed in the order in which they are trained: all models of a seed, then those of the next. So the quotient of two
    models is of times measured minutes apart, and its deviation over the seeds is that of the rounds. New times are written
    when all are there: no quotient is of an earlier and a later time.

    Raises:
        StudyError: no point is done, a point cannot be timed or is being trained, or the folder holds another study.
    """
    check(study.out, study.facts, study.growing)
    done = [point for point in study.shown if study.is_done(point)]
    if not done:
        raise StudyError(f"{study.out} has no finished training yet; start them without --time.")
    lock = FileLock(study.out / "times")
    _take(lock, f"{study.out} is being timed by another call; wait for it.")
    try:
        for left in study.out.glob(f"{PREFIX}*"):  # by a call that was killed
            shutil.rmtree(left)
        _check_idle(study)
        ranks = [_ranks_of(study, point) for point in done]
        study.prepare(done)  # data may have been lost since
        pairs = zip(done, ranks, strict=True)
        costs = [_timed(study, *pair) for pair in tqdm(pairs, total=len(done), desc="timing", unit="run", disable=None)]
        for point, of_point in zip(done, costs, strict=True):
            study.finish(point, asdict(of_point))
            note_timed(study.out, point.name)
    finally:
        lock.release()
    return draw(study)


def _timed(study: PretrainingStudy, point: Point, ranks: int) -> Costs:
    """Return a point's costs, with times of the steps of a short training, and of forecasts of its trained model."""
    with TemporaryDirectory(prefix=PREFIX, dir=study.out) as name:
        folder = Path(name)
        study.train(point, f"output.dir={in_yaml(folder)}", *SHORT)
        check_trained(folder, study.launcher)
        if (now := find_checkpoint(folder)[0].num_ranks) != ranks:
            raise StudyError(f"{point.name} was trained on {ranks} ranks, but timed on {now}; see --launcher.")
        return study.costs_of(point, folder)


def _ranks_of(study: PretrainingStudy, point: Point) -> int:
    """Return the number of ranks of a point's training.

    Raises:
        StudyError: the point's scores or its model cannot be read.
    """
    rows_of_done(study, point)
    try:
        return find_checkpoint(study.folder(point))[0].num_ranks
    except Mistake as error:
        raise StudyError(
            f"{point.name} cannot be timed: {error} Restore its folder, or remove it and start the study without --time: it is "
            "trained again."
        ) from None


def _check_idle(study: PretrainingStudy) -> None:
    """Raise StudyError if another call trains a point of the study: times would be of a machine that does something else."""
    waiting: Sequence[Point] = [point for point in (*study.points, *study.shown) if not study.is_done(point)]
    for point in dict.fromkeys(waiting):
        if study.folder(point).exists():
            lock = FileLock(study.folder(point))
            _take(lock, f"{point.name} is being trained by another call; time the study when that has ended.")
            lock.release()


def _take(lock: FileLock, refusal: str) -> None:
    try:
        lock.take()
    except LockedError:
        raise StudyError(refusal) from None
