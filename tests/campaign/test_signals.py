"""Signals at any moment of a run, to its ranks and to its launcher: it saves and leaves, and the next one goes on."""

import os
import shutil
from contextlib import suppress
from random import Random
from signal import SIGINT, SIGTERM, SIGUSR1

import psutil
import pytest

from tests.campaign.moments import (
    KINDS,
    NUM_STEPS,
    PHASES,
    SECONDS_TO_CLEAN_UP,
    Kind,
    check_saved,
    go_on_to_the_end,
    last_step,
    place_of,
    saved_step,
    scaled,
    started,
    training,
    write_config,
)
from tests.support.programs import LAUNCHERS, clean_environment, in_background

NUM_RUNS = 11
"""Each run hears a signal at its start and at the steps that it saves, five in all, before it comes to its end."""

HELD = "{count} signals let runs save and leave, and go on"
SIGNALS = (SIGUSR1, SIGTERM, SIGINT)
SAVED_AND_LEFT = 75
SECONDS = 120

# And the launcher's exit code, of which torchrun's says nothing of its ranks.
SENT = [("deepspeed", signal, None) for signal in SIGNALS]
SENT += [("torchrun", SIGUSR1, -SIGUSR1), ("torchrun", SIGTERM, 1), ("torchrun", SIGINT, None)]
# Open MPI kills ranks 0.2 s after it has passed on one of the others, see docs/reliability.md. Each is sent once: launchers
# take longer to start than a run takes to train.
SENT += [("mpirun", SIGUSR1, SAVED_AND_LEFT)]

pytestmark = pytest.mark.slow


def cases():
    for number in range(scaled(NUM_RUNS)):
        yield pytest.param(number, KINDS[number % len(KINDS)], id=f"{number}")


@pytest.mark.parametrize(("number", "kind"), [*cases()])
def test_ranks_that_hear_a_signal_save_and_leave_again_and_again(tmp_path, data, whole, held, number, kind):
    random, undisturbed, folder = Random(f"signal {number}"), whole(kind), tmp_path / "case"
    run, saved = folder / "run", 0
    write_config(folder, data, kind)
    for at, moment in enumerate(undisturbed.draw_several(random)):
        if saved == NUM_STEPS:  # it was faster than we
            break
        signal, is_at_the_start = SIGNALS[(number + at) % len(SIGNALS)], moment.has_come(run)
        with started(folder, training(folder, kind, *["--resume"] * run.exists())) as ranks:
            if is_at_the_start and signal != SIGINT:  # the first moment of an interpreter is nobody's
                ranks.wait_until_not_killed_by(SIGUSR1, SIGTERM)
            moment.wait(run, ranks.has_ended)
            saved = saved_step(run)
            ranks.signal(signal, random.randint(kind.num_ranks if is_at_the_start else 1, kind.num_ranks), random)
            codes = ranks.codes(SECONDS)
            ranks.check_nothing_is_left()
            about = f"{signal.name}, {moment}, {codes}: {ranks.text()}"
            if set(codes) == {0}:
                place = "after the end"
            elif codes == [SAVED_AND_LEFT] * kind.num_ranks:
                place, done = place_of(run), last_step(run)
                assert saved_step(run) == done and f"step {done} of" in ranks.text(), about
            else:
                # Before it listens, ctrl-C ends a run as any program.
                assert is_at_the_start and signal == SIGINT and saved_step(run) == saved, about
                place = "before it listened"
        saved = check_saved(run, saved)
        held[f"{signal.name} {place}"] += 1
    go_on_to_the_end(folder, kind, saved, undisturbed)


def launched():
    for number in range(scaled(len(SENT))):
        name, signal, expected = SENT[number % len(SENT)]
        phase = PHASES[1:][number % len(PHASES[1:])]  # all but the start, which is mostly the launcher's own
        yield pytest.param(number, name, signal, expected, phase, id=f"{number}-{name}")


@pytest.mark.parametrize(("number", "name", "signal", "expected", "phase"), [*launched()])
def test_ranks_save_when_their_launcher_gets_a_signal(
    tmp_path, data, whole, held, number, name, signal, expected, phase
):
    kind = Kind(2, (1, 3)[number % 2], 0)
    random, undisturbed = Random(f"launcher {number}"), whole(kind)
    moment, folder = undisturbed.draw(phase, random), tmp_path / "case"
    write_config(folder, data, kind)
    run, printed = folder / "run", folder / "output.txt"
    command = [*LAUNCHERS[name], *training(folder, kind)[0][1:]]
    environment = clean_environment() | {"TMPDIR": str(folder / "tmp")}
    with (
        printed.open("w") as output,
        in_background(command, environment, stdout=output, stderr=output) as process,
    ):
        moment.wait(run, lambda: process.poll() is not None)
        saved, family = saved_step(run), []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal)
        code = process.wait(SECONDS)
        alive = psutil.wait_procs(family, timeout=SECONDS_TO_CLEAN_UP)[1]
        about = f"{name}, {signal.name}, {moment}, {code}: {printed.read_text()}"
        assert not alive, about
    for own in (folder / "tmp").glob("torchelastic_*"):
        shutil.rmtree(own)  # which torchrun leaves where a signal ends it
    assert saved_step(run) == last_step(run) >= saved and "] Traceback" not in about, about
    assert expected in (None, code) or last_step(run) == NUM_STEPS, about
    go_on_to_the_end(folder, kind, saved, undisturbed)
    held[f"{signal.name} to {name}" if code != 0 else "after the end"] += 1
