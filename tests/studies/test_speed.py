"""How fast models forecast."""

import os
import platform
import resource

import pytest
import torch

from matey.process.resources import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, set_options
from matey.studies import speed
from matey.studies.speed import batch_of, batches_of, forecast_speed, step_seconds


def test_long_samples_are_forecast_in_smaller_batches():
    assert [batch_of(tokens) for tokens in (1, 128.5, 4096, 16384, 65536, 262144)] == [16, 16, 16, 4, 1, 1]


def test_a_batch_that_is_not_full_is_not_timed():
    assert [list(batch) for batch in batches_of(range(50), 16)] == [[*range(16)], [*range(16, 32)], [*range(32, 48)]]
    assert [list(batch) for batch in batches_of(range(3), 16)] == [[0, 1, 2]]


def test_a_step_on_a_gpu_costs_the_time_of_the_device():
    line = {"seconds": 0.1, "cpu_seconds": 0.7, "seconds_by_part": {"data": 0.125, "forward": 0.375}}
    assert (step_seconds(line, "cuda"), step_seconds(line, "cpu")) == (0.5, 0.7)


def test_as_many_forecasts_are_timed_alone_as_together_but_few_of_long_samples(monkeypatch):
    timed = []
    monkeypatch.setattr(speed, "_forecast_seconds", lambda *of: timed.append(of[3:]) or 1.0)
    for tokens in (128, 16384, 65536):
        forecast_speed(None, None, 1, tokens)
    assert timed == [(1, 16), (16, 5), (1, 5), (4, 5), (1, 5), (1, 5)]


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ),
    reason="the memory is another library's, or the user's matter",
)
def test_every_model_is_timed_where_freed_memory_is_kept(monkeypatch):
    """Else those trained in this process, which keeps it then, would be timed without page faults and others with them."""

    def page_faults(*_):
        torch.ones(2**20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    set_options({M_MMAP_THRESHOLD: 2**17, M_TRIM_THRESHOLD: 2**17, M_TOP_PAD: 0})
    monkeypatch.setattr(speed, "_forecast_seconds", page_faults)
    assert forecast_speed(None, None, 1)["forecast_seconds"] < 100
