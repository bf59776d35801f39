"""The layers of the package and of its tests, as far as import-linter (`make lint`) does not see them."""

import json
import re
import sys

import pytest

from matey.checkpoints import run_files
from tests.support.paths import ROOT
from tests.support.programs import start

SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "matey").rglob("*.py"))}
TESTS = {path.relative_to(ROOT / "tests"): path.read_text() for path in (ROOT / "tests").rglob("*.py")}


def test_parallel_alone_uses_torch_distributed():
    uses = re.compile(r"(?<!\")torch\.distributed|from torch import .*\bdistributed")
    assert {path.split("/")[1] for path, text in SOURCES.items() if uses.search(text)} == {"parallel"}


def test_text_names_modules_of_other_rooms_for_the_choices_of_the_run_yaml_alone():
    """What is imported by its name, as registries do, import-linter does not see."""
    place = re.compile(r"[\"']matey\.(\w+)[\w.]*:")
    upward = {
        path for path, text in SOURCES.items() if {*place.findall(text)} - {path.split("/")[1].removesuffix(".py")}
    }
    assert upward == {"matey/config/schema.py"}


def test_no_module_of_tests_is_imported_by_another_nor_from_another_folder():
    tests = re.compile(r"^\s*(?:from|import) .*\b(?:conftest|test_\w+)", re.MULTILINE)
    folders = re.compile(r"^\s*(?:from|import) tests\.(\w+)\.", re.MULTILINE)
    wrong = {path for path, text in TESTS.items() if tests.search(text)}
    wrong |= {path for path, text in TESTS.items() if {*folders.findall(text)} - {"support", path.parts[0]}}
    assert len(TESTS) > 100 and not wrong, "helpers belong into tests/support"


def test_names_of_tests_are_short_enough_to_read():
    names = [name for text in TESTS.values() for name in re.findall(r"^ *def (test_\w+)", text, re.MULTILINE)]
    assert len(names) > 500 and [name for name in names if len(name) > 80] == []


def test_names_of_a_runs_files_are_spelt_in_one_module_alone():
    names = {name for name in vars(run_files).values() if isinstance(name, str) and re.fullmatch(r"\w+\.\w+", name)}
    assert {"config.yaml", "metrics.jsonl", "report.html"} <= names
    spelt = re.compile(rf"[\"'/]({'|'.join(map(re.escape, names))})[\"']")
    assert [path for path, text in SOURCES.items() if spelt.search(text)] == ["matey/checkpoints/run_files.py"]


# Imports every module of the package, those that train first, and prints what has changed but for the modules themselves.
EFFECTS = """
import atexit, json, os, pkgutil, signal, sys, threading, warnings
from importlib import import_module

def state():
    return {
        "variables": [*os.environ.items()],
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "held signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "work at the end": atexit._ncallbacks(),
        "threads": [thread.name for thread in threading.enumerate()],
        "warnings": [*map(str, warnings.filters)],
        "path": [*sys.path],
        "streams": [id(sys.stdout), id(sys.stderr)],
    }

def changed_by(names, of_others):  # what they do is theirs
    for name in of_others.split():
        import_module(name)
    before = state()
    for name in names:
        import_module(name)
    after = state()
    return [(what, before[what], after[what]) for what in before if before[what] != after[what]]

others = "torch torch.utils.cpp_extension transformers peft h5py scipy tqdm"
changed = changed_by(["matey.model.matey", "matey.data", "matey.evaluate.rollout", "matey.train.run"], others)
for name in ("MateyModel", "open_dataset", "rollout"):
    getattr(import_module("matey"), name)
modules = [*sys.modules]
names = [module.name for module in pkgutil.walk_packages(import_module("matey").__path__, "matey.")]
changed += changed_by(names, "netCDF4 zarr xarray matplotlib.figure")
print(json.dumps([modules, len(names), changed]))
"""


@pytest.mark.processes
def test_importing_ours_changes_nothing_outside_and_needs_neither_deepspeed_nor_mpi():
    result = start([sys.executable, "-c", EFFECTS], anew=True)
    assert result.returncode == 0, result.stderr
    modules, num_modules, changed = json.loads(result.stdout)
    assert num_modules > 150 and changed == []
    assert "matey.train.run" in modules and {"deepspeed", "mpi4py", "matplotlib"}.isdisjoint(modules)
