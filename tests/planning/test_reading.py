"""Whether the loader keeps up with the steps."""

import pytest

from matey.benchmark.step import Case
from matey.commands.plan import MB, reading_text
from matey.planning.memory import read_bytes
from matey.planning.workload import Workload
from tests.support.planned import samples_of


@pytest.mark.parametrize(
    ("workers", "rate", "words"),
    [
        (2, 60 * MB, "its 2 data.workers can read 120.0: enough"),
        (2, 40 * MB, "a step takes 1.2 times as long; set data.workers to 3"),
        (0, 40 * MB, "it can read 40.0: reading is the bottleneck"),
        (4, None, "not known (--read_rate)"),
    ],
)
def test_steps_wait_where_processes_read_less_than_the_steps_take_in(workers, rate, words):
    text = reading_text(100 * MB, rate, workers, 8)
    assert "of a rank, 0.8 GB of all" in text and words in text


@pytest.mark.parametrize("ways", [1, 4])
def test_a_rank_reads_its_part(ways):
    case = Case("micro", grid=(64, 64), batch=1, network="paper")
    config = case.make_config()
    (sample,) = samples_of(case.make_batch(), config)
    workload = Workload(config, (sample,))
    assert read_bytes(workload, 1, ways) == sample.num_bytes / ways
    assert read_bytes(workload, 4, 4) == sample.num_bytes  # a sample of four for each of four ranks
