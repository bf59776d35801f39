"""Flags within bounds are read, and all others refused in a sentence."""

import argparse
import math

import pytest

from matey.config import flags


@pytest.mark.parametrize("text", ["0", "1025", "-1", "1.5", "many", "", "9" * 5000, "nan", "1e2"])
def test_a_number_of_threads_that_would_crash_the_process_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 1,024, got '"):
        flags.threads(text)
    assert flags.threads("1024") == 1024


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "2", "1e400", "half"])
def test_a_share_is_a_finite_number_from_zero_to_one(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 0 to 1, got"):
        flags.number(0, 1)(text)
    assert flags.number(0, 1)("0.25") == 0.25 and not math.isnan(flags.number(0, 1)("1"))


@pytest.mark.parametrize("text", ["0,8", "8", "8,8,8,8", "8,,8", "8,x"])
def test_a_grid_has_two_or_three_positive_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected "):
        flags.wholes(1, 65_536, (2, 3))(text)
    assert flags.wholes(1, 65_536, (2, 3))("8,16") == (8, 16)


def test_a_name_of_bytes_that_are_no_text_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a name in UTF-8, got 'a\\udcff'"):
        flags.path("a\udcff")
    assert flags.path("Wärme").name == "Wärme"
