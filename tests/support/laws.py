"""Laws of many cases, of which `make test-unit` runs a few, and what whole grids of cases have proved."""

import pytest

PROVED: list[str] = []  # lines that tests leave for the end of the run


def law(names, cases, quick, **how):
    """Parametrize a law over its cases; all but the `quick` ones, which are the most different, carry the mark `whole`."""
    cases = list(cases)
    assert quick and all(case in cases for case in quick)
    marked = [
        (case if isinstance(names, tuple) else (case,), () if case in quick else pytest.mark.whole) for case in cases
    ]
    return pytest.mark.parametrize(names, [pytest.param(*values, marks=marks) for values, marks in marked], **how)
