"""Names of tests are claims that can be read."""

import re

from tests.support.paths import ROOT

LONGEST_NAME = 80


def test_names_of_tests_are_short_enough_to_read():
    long = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        long += [f"{path.relative_to(ROOT)}: {name}" for name in names if len(name) > LONGEST_NAME]
    assert long == []
