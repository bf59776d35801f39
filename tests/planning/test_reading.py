"""Whether the loader keeps up with the steps."""

import pytest

from matey.planning.reading import MB, reading_text


@pytest.mark.parametrize(
    ("workers", "rate", "words"),
    [
        (2, 60 * MB, "2 workers can read 120.0 (given): enough"),
        (0, 100 * MB, "one process can read 100.0 (given): enough"),
        (2, 40 * MB, "a step takes 1.2 times as long; set data.workers to 3"),
        (0, 40 * MB, "one process can read 40.0 (given): reading is the bottleneck"),
        (4, None, "not known (--read_rate)"),
    ],
)
def test_steps_wait_where_processes_read_less_than_the_steps_take_in(workers, rate, words):
    text = reading_text(100 * MB, rate, workers, 8, "given")
    assert "of a rank, 0.8 GB of all" in text and words in text
