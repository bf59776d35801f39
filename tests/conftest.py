"""What all tests share: fixtures of small runs, which tests start processes, and what holds for the whole session."""

from __future__ import annotations

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # ranks of a test may outnumber the GPUs; it is read on first import

import gc
import inspect
import signal
import sys
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from matey.process.start import let_waiting_threads_sleep
from tests.support.laws import PROVED
from tests.support.programs import SHARED, clean_environment, preloaded, script
from tests.support.runs import small_run

let_waiting_threads_sleep()  # in what the tests start
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: what the tests start is to hear it
    signal.signal(signal.SIGHUP, lambda number, frame: None)
gc.disable()  # until all tests are found: there is no garbage yet


def starts_processes(config):
    return "not processes" not in config.option.markexpr


def pytest_sessionstart(session):
    """What takes seconds to import is imported here, and not where it is not needed."""
    if starts_processes(session.config):
        from matey.parallel.engine import locks

        for lock, age in locks():
            if age > 1200:  # it takes a minute or two
                pytest.exit(
                    f"a compilation that was killed has left {lock}, for which tests would wait for ever: delete it", 2
                )
    hands_out = getattr(session.config.option, "dist", "no") != "no" and not hasattr(session.config, "workerinput")
    if not hands_out:  # to other processes, under pytest-xdist
        import torch

        torch.set_num_threads(1)
        session.config.pluginmanager.import_plugin("tests.support.evaluations")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config):
    if starts_processes(config):
        os.environ[SHARED] = str(preloaded().folder)  # which imports while they collect


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests that start processes: they, a fixture of theirs or a function of the tests that they call name one of `NAMES`.

    What this does not find, as a process that is started deep in the package, is marked by hand.
    """
    known: dict[object, bool] = {}
    for item in items:
        fixtures = [
            each.func for name in item.fixturenames for each in item._fixtureinfo.name2fixturedefs.get(name, ())
        ]
        if any(_starts(each, known) for each in (item.function, *fixtures)):
            item.add_marker("processes")


NAMES = {"subprocess", "multiprocessing", "fork", "Server"}


def _starts(thing, known):
    """Whether a function or class of the tests comes to start a process; what is known of others is kept."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if isinstance(thing, type) and _is_of_tests(getattr(sys.modules[thing.__module__], "__file__", None)):
        return any(_starts(each, known) for each in vars(thing).values() if isinstance(each, FunctionType))
    if not isinstance(thing, FunctionType) or not _is_of_tests(thing.__code__.co_filename):
        return False
    if thing not in known:
        names = {*_names_in(thing.__code__)}
        known[thing] = not names.isdisjoint(NAMES)  # also of use in a circle
        known[thing] |= any(_starts(thing.__globals__.get(name), known) for name in names)
    return known[thing]


def _is_of_tests(file):
    return file is not None and Path(__file__).parent in Path(file).parents


def _names_in(code):
    return {*code.co_names}.union(*(_names_in(each) for each in code.co_consts if isinstance(each, CodeType)))


def pytest_collection_finish():
    gc.freeze()  # a million objects of the imports, through which Python would look for garbage again and again
    gc.enable()


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes, under pytest-xdist
        session.config.workeroutput["proved"] = PROVED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    PROVED.extend(getattr(node, "workeroutput", {}).get("proved", []))


def pytest_terminal_summary(terminalreporter):
    for line in PROVED:
        terminalreporter.write_line(f"proved: {line}")


@pytest.fixture
def run_yaml(tmp_path):
    """Write the data of a small run and return a function that writes its YAML, with other values where they are given."""
    return small_run(tmp_path)


@pytest.fixture
def forked(monkeypatch):
    """The processes that the package starts in a test are forked from `preloaded` as well."""
    monkeypatch.setenv("OMP_NUM_THREADS", clean_environment()["OMP_NUM_THREADS"])
    monkeypatch.setattr(sys, "executable", preloaded().python)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Return a function that runs a script of the repository here: exit status, standard output and error."""

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        status = script(path).main()
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def without_page(monkeypatch):
    """Evaluations in this process write their errors and no page, which takes most of their time: others look at pages."""
    monkeypatch.setattr("matey.report.evaluation.write_report", lambda path, evaluation, about: None)
