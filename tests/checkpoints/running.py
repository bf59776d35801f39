"""Runs the cases of engine_cases.py."""

import json

from tests.support.programs import cases_of, start_ranks

MORE = ("bf16_2", "bf16_3")  # whose shards have names of the same kind as those of bf16_1


def run_cases(num_ranks, cases, root):
    """Run cases of engine_cases.py on real ranks; return what was seen, by name of what was saved or resumed."""
    result = start_ranks(num_ranks, "-m", "tests.support.engine_cases", json.dumps(cases), str(root), timeout=600)
    return {" ".join(map(str, (what, *arguments))): seen for what, arguments, seen in cases_of(result)}
