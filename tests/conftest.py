"""What all tests share: fixtures of small runs, and what holds for the whole session."""

from __future__ import annotations

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # ranks of a test may outnumber the GPUs; it is read on first import

import gc
import signal
import sys

import pytest

from matey.process.start import let_waiting_threads_sleep
from tests.support.programs import SHARED, clean_environment, preloaded
from tests.support.runs import small_run

pytest_plugins = ["tests.support.commands", "tests.support.processes", "tests.support.proved"]

let_waiting_threads_sleep()  # in what the tests start
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: what the tests start is to hear it
    signal.signal(signal.SIGHUP, lambda number, frame: None)
gc.disable()  # until all tests are found: there is no garbage yet


def starts_processes(config):
    return "not processes" not in config.option.markexpr


def hands_out(config):
    """Whether this process runs no tests, but hands them out to others, under pytest-xdist."""
    return getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput")


def pytest_sessionstart(session):
    """What takes seconds to import is imported here, and not where it is not needed."""
    if starts_processes(session.config):
        from matey.parallel.engine import locks

        for lock, age in locks():
            if age > 1200:  # it takes a minute or two
                pytest.exit(
                    f"a compilation that was killed has left {lock}, for which tests would wait for ever: delete it", 2
                )
    if not hands_out(session.config):
        import torch

        torch.set_num_threads(1)
        session.config.pluginmanager.import_plugin("tests.support.evaluations")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config):
    if starts_processes(config):
        os.environ[SHARED] = str(preloaded().folder)  # which imports while they collect


def pytest_collection_finish():
    gc.freeze()  # a million objects of the imports, through which Python would look for garbage again and again
    gc.enable()


@pytest.fixture
def run_yaml(tmp_path):
    """Write the data of a small run and return a function that writes its YAML, with other values where they are given."""
    return small_run(tmp_path)


@pytest.fixture
def forked(monkeypatch):
    """The processes that the package starts in a test are forked from `preloaded` as well."""
    monkeypatch.setenv("OMP_NUM_THREADS", clean_environment()["OMP_NUM_THREADS"])
    monkeypatch.setattr(sys, "executable", preloaded().python)
