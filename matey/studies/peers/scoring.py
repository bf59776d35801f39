"""The measurements that score the models of a study, also as flags of launch/evaluate.py, which scores MATEY."""

from __future__ import annotations

from matey.evaluate.evaluation import Protocol

ROLLOUT_STEPS = 10


def protocol_of(lead_max: int, max_windows: int = 200, rollout_steps: int = ROLLOUT_STEPS) -> Protocol:
    """Return the measurements of a study: lead 1 and the longest trained lead, and rollouts in steps of both."""
    leads = tuple(sorted({1, lead_max}))
    return Protocol(leads, rollout_steps, max_windows, rollout_lead=min(lead_max, rollout_steps))


def flags_of(protocol: Protocol) -> dict[str, object]:
    """Return the flags, by name, that make launch/evaluate.py measure the same."""
    leads = ",".join(map(str, protocol.leads))
    flags = {"leads": leads, "rollout": protocol.rollout_steps, "rollout-lead": protocol.rollout_lead}
    return flags | {"max-windows": protocol.max_windows, "batch": protocol.batch_size}
