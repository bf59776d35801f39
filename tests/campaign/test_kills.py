"""SIGKILL at any moment of a run or a conversion: nothing is lost or left, and the next one goes on as if nothing was."""

import hashlib
import shutil
import sys
import time
from random import Random
from signal import SIGKILL

import pytest

from tests.campaign.moments import PHASES, go_on_to_the_end, place_of, saved_step
from tests.campaign.size import scaled
from tests.support.watched import KINDS, NUM_STEPS, started, training, write_config

NUM_KILLS = 100
HELD = "{count} SIGKILLs lost nothing and left nothing behind"
FORMS = ("huggingface", "fp32", "universal")
SECONDS = 120  # enough for each program on a loaded machine

pytestmark = pytest.mark.slow


def cases():
    """The cases in an order in which a few are of different phases and kinds already."""
    places = (*PHASES, "conversion")
    for number in range(scaled(NUM_KILLS)):
        yield pytest.param(number, places[number % len(places)], KINDS[number % len(KINDS)], id=f"{number}")


@pytest.mark.parametrize(("number", "phase", "kind"), [*cases()])
def test_what_is_killed_goes_on_as_if_nothing_was(tmp_path, data, whole, held, number, phase, kind):
    random = Random(f"kill {number}")
    if phase == "conversion":
        held["conversion"] += kill_a_conversion(tmp_path, whole(kind).run, FORMS[number % len(FORMS)], random)
        return
    undisturbed = whole(kind)
    moment, folder = undisturbed.draw(phase, random), tmp_path / "case"
    write_config(folder, data, kind)
    with started(folder, training(folder, kind)) as ranks:
        moment.wait(ranks.run, ranks.has_ended)
        saved = saved_step(folder / "run")
        # Before ranks have met, only a launcher can tell one that another is gone.
        ranks.signal(SIGKILL, random.randint(1 if phase != "start" else kind.num_ranks, kind.num_ranks), random)
        codes = ranks.codes(SECONDS)
        ranks.check_nothing_is_left()
        # A rank that is left alone ends by itself, and not as if all were well; or the run had come to its end before.
        is_at_the_end = saved_step(folder / "run") == NUM_STEPS
        assert -SIGKILL in codes or set(codes) == {0}, f"{moment}, {codes}: {ranks.text()}"
        assert 0 not in codes or is_at_the_end, f"{moment}, {codes}: {ranks.text()}"
        place = place_of(folder / "run") if -SIGKILL in codes else "after the end"
    go_on_to_the_end(folder, kind, saved, undisturbed)
    held[place] += 1


def kill_a_conversion(folder, run, form, random):
    """Kill a conversion that has begun to write, and repeat it; return 1 for the case that held."""
    (folder / "tmp").mkdir()
    before, expected, out = contents(run), run.with_name(f"converted to {form}"), folder / "out"
    command = [sys.executable, "tools/convert_checkpoint.py", str(run), "--to", form, "--out"]
    if not expected.exists():
        with started(folder, [[*command, str(expected)]]) as programs:
            assert programs.codes(SECONDS) == [0], programs.text()
    new, begun = out.with_name(".out.unfinished"), time.monotonic()
    with started(folder, [[*command, str(out)]]) as programs:
        while not new.exists() and not programs.has_ended():
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
    return 1


def contents(folder):
    """A fingerprint of each file, of a page's text only that it is there: it holds the date."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.suffix == ".md" or hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
