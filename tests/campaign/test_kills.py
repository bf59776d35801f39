"""SIGKILL at any moment of a run or a conversion: nothing is lost or left, and the next one goes on as if nothing was."""

import hashlib
import shutil
import sys
import time
from random import Random
from signal import SIGKILL

import pytest

from tests.campaign.moments import (
    EVERY,
    KINDS,
    NUM_STEPS,
    check_saved,
    go_on_to_the_end,
    place_of,
    saved_step,
    scaled,
    started,
    training,
    write_config,
)

NUM_RUNS, NUM_CONVERSIONS = 17, 15
"""Each run is killed at its start and at the steps that it saves, five times, before it comes to its end."""

HELD = "{count} SIGKILLs lost nothing and left nothing behind"
FORMS = ("huggingface", "fp32", "universal")
SECONDS = 120  # enough for each program on a loaded machine

pytestmark = pytest.mark.slow


def cases(count):
    """Numbers and kinds of a count of cases."""
    return [pytest.param(number, KINDS[number % len(KINDS)], id=f"{number}") for number in range(scaled(count))]


@pytest.mark.parametrize(("number", "kind"), cases(NUM_RUNS))
def test_what_is_killed_again_and_again_goes_on_as_if_nothing_was(tmp_path, data, whole, held, number, kind):
    random, undisturbed, folder = Random(f"kill {number}"), whole(kind), tmp_path / "case"
    run, saved = folder / "run", 0
    write_config(folder, data, kind)
    for moment in undisturbed.draw_several(random):
        if saved == NUM_STEPS:  # it was faster than we
            break
        # Before ranks have met, only a launcher can tell one that another is gone.
        least = kind.num_ranks if moment.has_come(run) else 1
        with started(folder, training(folder, kind, *["--resume"] * run.exists())) as ranks:
            moment.wait(run, ranks.has_ended)
            saved = saved_step(run)
            ranks.signal(SIGKILL, random.randint(least, kind.num_ranks), random)
            codes = ranks.codes(SECONDS)
            ranks.check_nothing_is_left()
            # A rank that is left alone ends by itself, and not as if all were well; or the run had come to its end before.
            is_at_the_end = saved_step(run) == NUM_STEPS
            assert -SIGKILL in codes or set(codes) == {0}, f"{moment}, {codes}: {ranks.text()}"
            assert 0 not in codes or is_at_the_end, f"{moment}, {codes}: {ranks.text()}"
            place = place_of(run) if -SIGKILL in codes else "after the end"
        saved = check_saved(run, saved)
        held[place] += 1
    go_on_to_the_end(folder, kind, saved, undisturbed)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.workers], ids=str)
def test_a_save_in_which_a_process_that_reads_is_killed_is_finished(tmp_path, data, whole, kind):
    random, undisturbed, folder = Random(f"reader {kind}"), whole(kind), tmp_path / "case"
    moment = undisturbed.draw("save", random, random.randrange(EVERY, NUM_STEPS, EVERY))
    write_config(folder, data, kind)
    with started(folder, training(folder, kind)) as ranks:
        moment.wait(folder / "run", ranks.has_ended)
        readers = [process for process in ranks.processes() if process.pid not in ranks.sessions]
        random.choice(readers).kill()
        assert 0 not in ranks.codes(SECONDS) and "A process that reads data" in ranks.text(), ranks.text()
        ranks.check_nothing_is_left()
    assert place_of(folder / "run") != "save", moment
    go_on_to_the_end(folder, kind, moment.step, undisturbed)


@pytest.mark.parametrize(("number", "kind"), cases(NUM_CONVERSIONS))
def test_a_conversion_that_is_killed_is_whole_or_not_there_and_repeated(tmp_path, whole, held, number, kind):
    random, form, run, folder = Random(f"kill {number}"), FORMS[number % len(FORMS)], whole(kind).run, tmp_path
    new = folder / ".out.unfinished"
    (folder / "tmp").mkdir()
    before, expected, out = contents(run), run.with_name(f"converted to {form}"), folder / "out"
    command = [sys.executable, "tools/convert_checkpoint.py", str(run), "--to", form, "--out"]
    if not expected.exists():
        with started(folder, [[*command, str(expected)]]) as programs:
            assert programs.codes(SECONDS) == [0], programs.text()
    begun = time.monotonic()
    with started(folder, [[*command, str(out)]]) as programs:
        while not new.exists() and not programs.has_ended():
            assert time.monotonic() < begun + SECONDS, programs.text()
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.1 * (time.monotonic() - begun)))
        programs.signal(SIGKILL, 1, random)
        assert programs.codes(SECONDS)[0] in (-SIGKILL, 0), programs.text()
        programs.check_nothing_is_left()
    assert contents(run) == before
    if out.exists():  # then all of it
        assert contents(out) == contents(expected)
        shutil.rmtree(out)
    with started(folder, [[*command, str(out)]]) as programs:
        assert programs.codes(SECONDS) == [0], programs.text()
        programs.check_nothing_is_left()
    assert contents(out) == contents(expected) and not new.exists() and contents(run) == before
    held["conversion"] += 1


def contents(folder):
    """A fingerprint of each file, of a page's text only that it is there: it holds the date."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.suffix == ".md" or hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
