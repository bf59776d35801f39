"""Bad input of every kind through every program: one sentence, said once, exit code 2, no traceback, nothing lost."""

import hashlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.campaign.bad_inputs import CASES, EVALUATE, NAME, PRETRAIN, Case
from tests.campaign.moments import SHARE, Kind
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start, start_ranks
from tests.support.small_files import write_swe

HELD = "{count} bad inputs gave one sentence each"
# What a program calls its one sentence.
SENTENCE = re.compile(r"^(\[rank \d+\] )?([\w.]+( \w+)?: )?(error|fault): |^simulate\.py: ")
# What a run rewrites or appends to when it is asked to go on.
REWRITTEN = ("run/commands.txt", "run/config.yaml", "run/ds_config.json", "run/matey.lock")

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path, data, whole):
    """A folder with all that a case may spoil; disks that a case has mounted in it go with it."""
    folder = tmp_path / "here"
    shutil.copytree(whole(Kind(1, 1, 0)).run, folder / "run")
    shutil.copytree(data, folder / "swe")
    (folder / "tmp").mkdir()
    tree = yaml.safe_load((whole(Kind(1, 1, 0)).run.parent / "run.yaml").read_text())
    tree["output"]["dir"] = str(folder / "run")
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    shutil.copy(ROOT / "ds_configs" / "zero1.json", folder / "ds.json")
    yield folder
    subprocess.run(["umount", str(folder / "disk")], capture_output=True)


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(case: Case, folder) -> subprocess.CompletedProcess:
    words = case.words_of(folder)
    if case.num_ranks > 1:
        return start_ranks(case.num_ranks, *words)
    return start([sys.executable, *words], env=clean_environment() | case.environment)


@pytest.mark.parametrize("case", CASES[:: max(1, round(1 / SHARE))], ids=lambda case: case.name)
def test_bad_input_is_one_sentence(here, held, case):
    case.prepare(here)
    before = contents(here)
    result = run(case, here)
    printed = result.stdout + result.stderr
    assert result.returncode == case.code and "Traceback" not in printed, printed
    said = [line for line in printed.splitlines() if SENTENCE.match(line)]
    assert len(said) == 1, printed
    assert case.words in said[0] and said[0].isprintable() and len(said[0]) < 1500, printed
    after = contents(here)
    lost = {name for name in before if after.get(name) != before[name] and name not in REWRITTEN}
    assert not lost, f"{lost} changed: {printed}"
    assert not [path for path in here.rglob("*.new") if path.is_file()], "something half done is left"
    held[f"exit code {case.code}"] += 1


def test_a_run_whose_names_hold_markup_quotes_and_unicode_trains_and_is_drawn(here, held):
    strange = here / NAME
    write_swe(strange / "2D_rdb_NA_NA.h5", 10, num_frames=8)
    tree = yaml.safe_load((here / "run.yaml").read_text())
    tree["data"]["sets"][0]["path"] = str(strange)
    tree["output"]["dir"] = str(strange / "run")
    (here / "run.yaml").write_text(yaml.safe_dump(tree))
    trained = run(Case("", f"{PRETRAIN} --set train.steps=2", ""), here)
    assert trained.returncode == 0, trained.stderr
    words = Case("", EVALUATE, "").words_of(here)
    drawn = start([sys.executable, *words[:-1], strange / "run", "--rollout", "2", "--leads", "1"])
    assert drawn.returncode == 0, drawn.stderr
    page = (here / "report" / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    held["strange names that work"] += 1
