"""Commands that run in the process of the tests, where nothing is asked of a process of its own."""

import importlib.util
import sys

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Return a function that runs a script of the repository here: exit status, standard output and error."""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location(script.replace("/", "_").removesuffix(".py"), ROOT / script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        status = module.main()
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def without_page(monkeypatch):
    """Evaluations in this process write their errors and no page, which takes most of their time: others look at pages."""
    monkeypatch.setattr("matey.commands.evaluate.write_report", lambda path, evaluation, about: None)
