"""Started by test_failure.py on two ranks: works until rank 1 fails, or all are ended, in the way that the argument names."""

import os
import signal
import sys
import time

import torch

from matey.mistakes import Mistake
from matey.parallel.collectives import dealt_out, rank, sum_over_ranks
from matey.parallel.environment import find_environment, run_on_ranks_or_here, start_processes
from matey.parallel.failure import during
from matey.process.ending import end_with_error
from matey.process.start import entry_point


def forecast(seconds: float) -> None:
    if not seconds:
        raise Mistake("what rank 1 alone met")
    time.sleep(seconds)


def forecast_long(seconds: float) -> None:
    sys.stdout.write(f"rank {rank()} is forecasting\n")
    sys.stdout.flush()
    time.sleep(seconds)


@entry_point
def main(way: str, timeout: float) -> int:
    if way == "forecasts":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests behind `&` ignore
        run_on_ranks_or_here(lambda _: forecast_long(timeout), "cpu", threads=1)
    if way == "meets_a_mistake":
        run_on_ranks_or_here(lambda _: dealt_out(forecast, [timeout, 0, timeout]).clear(), "cpu", threads=1)
    environment = find_environment()
    start_processes(environment, timeout)
    for step in range(100):
        if environment.rank == 1 and step == 3:
            sys.stdout.write("failing now\n")
            sys.stdout.flush()
            if way == "raises":
                raise KeyError("water_height")
            if way == "is_refused":
                end_with_error(1, 2, "error: what rank 1 alone met")
            os.kill(os.getpid(), {"is_killed": signal.SIGKILL, "hangs": signal.SIGSTOP}[way])
        if way == "is_refused" and step == 3:
            time.sleep(timeout)  # which no closed connection ends, as a wait for a GPU
        with during(f"step {step}"):
            sum_over_ranks(torch.ones(4))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
