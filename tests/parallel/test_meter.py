"""What a step takes, on one process."""

import resource
import subprocess
import sys
import time

import pytest
import torch

from matey.parallel.collectives import peak_memory_bytes
from matey.parallel.meter import Meter


def test_the_parts_of_a_step_add_up_to_it_and_a_part_may_come_twice():
    meter = Meter(torch.device("cpu"))
    for part, seconds in (("forward", 0.02), ("backward", 0.01), ("forward", 0.03)):
        time.sleep(seconds)
        meter.mark(part)
    parts = meter.read().numbers()["seconds_by_part"]
    assert list(parts) == ["forward", "backward"]
    assert parts["forward"] >= 0.05 and parts["backward"] >= 0.01
    assert sum(parts.values()) <= meter.seconds()


def test_cpu_time_is_that_of_work_and_not_of_waiting():
    meter = Meter(torch.device("cpu"))
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    worked = meter.read().numbers()["cpu_seconds"]
    meter.start()
    time.sleep(0.05)
    assert worked >= 0.05 > meter.read().numbers()["cpu_seconds"]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it():
    held = b"1" * 900 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > len(held)
    asked = "from matey.parallel.collectives import peak_memory_bytes; print(peak_memory_bytes())"
    peak = int(subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True).stdout)
    assert 2**25 < peak < len(held)


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_logs_main_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch.cuda.is_initialized() or peak_memory_bytes() > 2**25
