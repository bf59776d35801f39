"""Bytes, calls and seconds of each kind of communication in a step, from DeepSpeed's communication logger if it is on."""

from __future__ import annotations

from matey.parallel.package import deepspeed

Traffic = dict[str, dict[str, float]]


def count_traffic() -> None:
    """Turn the logger on from now on; ``"comms_logger": {"enabled": true, "prof_all": true}`` in the JSON does from the start.

    Every collective then waits until it has finished, so that none overlaps with computation.
    """
    deepspeed().comm.configure(enabled=True, prof_all=True)


def stop_counting() -> None:
    """Turn the logger off."""
    deepspeed().comm.configure(enabled=False)


def take_traffic() -> Traffic | None:
    """Return ``{kind: {"bytes": ..., "calls": ..., "seconds": ...}}`` since the last call, None if nothing is counted.

    Bytes are those that this rank puts into DeepSpeed's calls, its own share included. Seconds include waiting for ranks that
    come later.
    """
    comm = deepspeed().comm.comm
    if not comm.comms_logger.enabled:
        return None
    traffic: Traffic = {}
    for kind, by_size in comm.comms_logger.comms_dict.items():
        calls = {size: counts[0] for size, counts in by_size.items()}
        traffic[kind] = {
            "bytes": sum(size * count for size, count in calls.items()),
            "calls": sum(calls.values()),
            # The logger's own latencies are cumulative (it reads its timer without a reset), so the timer is read instead.
            "seconds": comm.timers(kind).elapsed() / 1000,
        }
    comm.comms_logger.comms_dict.clear()  # it keeps a latency for every call of a run
    return traffic
