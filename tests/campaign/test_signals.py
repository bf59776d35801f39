"""Signals at any moment of a run, to its ranks and to its launcher: it saves and leaves, and the next one goes on."""

import os
import shutil
from contextlib import suppress
from random import Random
from signal import SIGINT, SIGTERM, SIGUSR1

import psutil
import pytest

from tests.campaign.moments import PHASES, go_on_to_the_end, last_step, place_of, saved_step
from tests.campaign.size import scaled
from tests.support.launchers import LAUNCHERS
from tests.support.programs import clean_environment, in_background
from tests.support.watched import KINDS, SECONDS_TO_CLEAN_UP, Kind, started, training, write_config

NUM_SIGNALS = 60
HELD = "{count} signals let runs save and leave, and go on"
SIGNALS = (SIGUSR1, SIGTERM, SIGINT)
SAVED_AND_LEFT = 75
SECONDS = 120
NUM_LAUNCHED = 12
"""How many of the signals go to a launcher, which takes longer to start than a run takes to train."""

SENT = [(name, signal) for name in ("deepspeed", "torchrun") for signal in SIGNALS]
# Open MPI kills ranks 0.2 s after it has passed on one of the others, see docs/reliability.md.
SENT += [("mpirun", SIGUSR1)]

pytestmark = pytest.mark.slow


def cases():
    for number in range(scaled(NUM_SIGNALS - NUM_LAUNCHED)):
        phase, kind = PHASES[number % len(PHASES)], KINDS[number % len(KINDS)]
        yield pytest.param(number, SIGNALS[number % len(SIGNALS)], phase, kind, id=f"{number}")


@pytest.mark.parametrize(("number", "signal", "phase", "kind"), [*cases()])
def test_ranks_that_hear_a_signal_save_and_leave(tmp_path, data, whole, held, number, signal, phase, kind):
    random, undisturbed = Random(f"signal {number}"), whole(kind)
    moment, folder = undisturbed.draw(phase, random), tmp_path / "case"
    write_config(folder, data, kind)
    with started(folder, training(folder, kind)) as ranks:
        if phase == "start" and signal != SIGINT:  # the first moment of an interpreter is nobody's
            ranks.wait_until_held(SIGUSR1, SIGTERM)
        moment.wait(ranks.run, ranks.has_ended)
        saved = saved_step(folder / "run")
        ranks.signal(signal, random.randint(1 if phase != "start" else kind.num_ranks, kind.num_ranks), random)
        codes = ranks.codes(SECONDS)
        ranks.check_nothing_is_left()
        about = f"{signal.name}, {moment}, {codes}: {ranks.text()}"
        if set(codes) == {0}:
            place = "after the end"
        elif codes == [SAVED_AND_LEFT] * kind.num_ranks:
            place = place_of(folder / "run")
            done = last_step(folder / "run")
            assert saved_step(folder / "run") == done and f"step {done} of" in ranks.text(), about
        else:
            # Before it listens, ctrl-C ends a run as any program.
            assert phase == "start" and signal == SIGINT and saved_step(folder / "run") == 0, about
            place = "before it listened"
    go_on_to_the_end(folder, kind, saved, undisturbed)
    held[f"{signal.name} {place}"] += 1


def launched():
    for number in range(scaled(NUM_LAUNCHED)):
        name, signal = SENT[number % len(SENT)]
        phase = PHASES[1:][number % len(PHASES[1:])]  # all but the start, which is mostly the launcher's own
        yield pytest.param(number, name, signal, phase, id=f"{number}-{name}")


@pytest.mark.parametrize(("number", "name", "signal", "phase"), [*launched()])
def test_ranks_save_when_their_launcher_gets_a_signal(tmp_path, data, whole, held, number, name, signal, phase):
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
    go_on_to_the_end(folder, kind, saved, undisturbed)
    held[f"{signal.name} to {name}" if code != 0 else "after the end"] += 1
