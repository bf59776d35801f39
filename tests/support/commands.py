"""Commands that run in the process of the tests, where nothing is asked of a process of its own."""

import importlib.util
import sys

import pytest

from tests.support.paths import ROOT


def script(path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    monkeypatch.setattr("matey.commands.evaluate.write_report", lambda path, evaluation, about: None)
