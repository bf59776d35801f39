"""Whether the loader keeps up with the steps."""

from dataclasses import replace

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


@pytest.mark.parametrize(
    ("chunk", "ways", "share"),
    [
        (None, 4, 1 / 4),
        ((1, 16, 64), 4, 1 / 4),
        ((1, 64, 64), 4, 1),  # each of four ranks has to unpack all of it
        ((1, 32, 64), 4, 1 / 2),
        ((1, 60, 64), 2, 1),  # the second rank needs cells of both chunks
        ((1, 64, 64), 1, 1),
    ],
)
def test_a_rank_reads_every_chunk_whole_that_its_part_touches(chunk, ways, share):
    case = Case("micro", grid=(64, 64), batch=1, network="paper")
    config = case.make_config()
    (sample,) = samples_of(case.make_batch(), config)
    workload = Workload(config, (replace(sample, chunk=chunk),))
    assert read_bytes(workload, 1, ways) == sample.num_bytes * share
    assert read_bytes(workload, 4, 4) == sample.num_bytes  # a sample of four for each of four ranks
