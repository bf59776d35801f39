"""What a step takes, on one process."""

import time

import torch

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
