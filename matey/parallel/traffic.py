"""Bytes and calls of each kind of communication in a step, from DeepSpeed's communication logger where it is turned on."""

from __future__ import annotations

from deepspeed.comm.comm import comms_logger

Traffic = dict[str, dict[str, int]]


def take_traffic() -> Traffic | None:
    """Return ``{kind: {"bytes": ..., "calls": ...}}`` since the last call on this rank, None where nothing is counted.

    Bytes are those of the messages as DeepSpeed sees them: what this rank puts into a call, its own share included. Turn the
    logger on with ``"comms_logger": {"enabled": true, "prof_all": true}`` in the DeepSpeed JSON.
    """
    if not comms_logger.enabled:
        return None
    traffic: Traffic = {}
    for kind, by_size in comms_logger.comms_dict.items():
        calls = {size: counts[0] for size, counts in by_size.items()}
        traffic[kind] = {"bytes": sum(size * count for size, count in calls.items()), "calls": sum(calls.values())}
    comms_logger.comms_dict.clear()  # it keeps a latency for every call of a run
    return traffic
