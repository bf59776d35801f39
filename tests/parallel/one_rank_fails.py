"""Started by test_failure.py on two ranks: works until rank 1 fails, or all are ended, in the way that the argument names."""

import os
import signal
import sys
import time
from functools import partial

import torch

from matey.commands.on_ranks import run_on_ranks
from matey.mistakes import Mistake
from matey.parallel.collectives import dealt_out, sum_over_ranks
from matey.parallel.environment import Environment, find_environment, start_processes
from matey.parallel.failure import during
from matey.process.ending import end_with_error


def forecast(seconds: float) -> None:
    if not seconds:
        raise Mistake("what rank 1 alone met")
    time.sleep(seconds)


def forecast_on(environment: Environment, seconds: float) -> None:
    sys.stdout.write(f"rank {environment.rank} is forecasting\n")
    sys.stdout.flush()
    time.sleep(seconds)


def main(way: str, timeout: float) -> None:
    if way == "forecasts":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests behind `&` ignore
        run_on_ranks(partial(forecast_on, seconds=timeout), threads=1)
    if way == "meets_a_mistake":
        run_on_ranks(lambda _: dealt_out(forecast, [timeout, 0, timeout]).clear(), threads=1)
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


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
