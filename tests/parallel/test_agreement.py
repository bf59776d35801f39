"""Ranks that do not agree."""

import pytest

from tests.support.programs import start_ranks

SCRIPT = """
import sys
from matey.config import ConfigError
from matey.parallel.agreement import check_agreement
from matey.parallel.environment import find_environment, start_processes, stop_processes
environment = find_environment()
start_processes(environment, 60, 1)
facts = {"the code": "1", "the data": "a" if environment.rank == 0 or sys.argv[1] == "same" else "b"}
try:
    check_agreement(facts)
    sys.stdout.write(f"rank {environment.rank} agrees\\n")
except ConfigError as error:
    sys.stdout.write(f"rank {environment.rank}: {error}\\n")
stop_processes()
"""


@pytest.mark.parametrize("data", ["same", "other"])
def test_every_rank_says_what_differs_and_on_which_rank(tmp_path, data):
    (tmp_path / "agree.py").write_text(SCRIPT)
    result = start_ranks(2, tmp_path / "agree.py", data)
    assert result.returncode == 0, result.stderr[-2000:]
    for rank in (0, 1):
        expected = f"rank {rank} agrees" if data == "same" else f"rank {rank}: Rank 1 has the data with fingerprint b"
        assert expected in result.stdout
