"""Knows which tests start processes: they are marked `processes`, and others are stopped from starting any.

A test is marked if it, a fixture that it asks for, or a function of the tests that one of them calls has one of `NAMES` in its
code. What this does not find, as a process that is started deep in the package, is marked by hand.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import pytest

NAMES = {"subprocess", "multiprocessing", "fork", "Server"}
"""What functions name that start processes themselves."""

EVENTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "tests.program")
"""What Python's audit hooks are told when a process is about to be started; the last is said by `preloaded`."""

TESTS = Path(__file__).resolve().parents[1]

_running: list[pytest.Item] = []  # the test that is on, if any


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known: dict[object, bool] = {}
    for item in items:
        fixtures = [
            each.func for name in item.fixturenames for each in item._fixtureinfo.name2fixturedefs.get(name, ())
        ]
        if any(_starts(each, known) for each in (item.function, *fixtures)):
            item.add_marker("processes")


def _starts(thing: object, known: dict[object, bool]) -> bool:
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


def _is_of_tests(file: str | None) -> bool:
    return file is not None and TESTS in Path(file).parents


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.remove(item)


def _refuse(event: str, _: tuple) -> None:
    if event in EVENTS and _running and _running[0].get_closest_marker("processes") is None:
        raise AssertionError(f"{_running[0].nodeid} starts a process: mark it with @pytest.mark.processes")


sys.addaudithook(_refuse)
