"""What tests of whole grids of cases have proved, said in lines at the end of the run."""

import pytest

PROVED: list[str] = []  # lines that tests of whole grids of cases leave for the end of the run


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes, under pytest-xdist
        session.config.workeroutput["proved"] = PROVED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    PROVED.extend(getattr(node, "workeroutput", {}).get("proved", []))


def pytest_terminal_summary(terminalreporter):
    for line in PROVED:
        terminalreporter.write_line(f"proved: {line}")
