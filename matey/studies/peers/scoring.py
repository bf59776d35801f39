"""The measurements that score the models of a study, also as flags of launch/evaluate.py, which scores MATEY."""

from __future__ import annotations

from matey.config import RunConfig
from matey.evaluate.evaluation import Protocol
from matey.evaluate.held_out import HeldOut
from matey.evaluate.sound import sound_beginnings

ROLLOUT_STEPS = 10


def protocol_of(lead_max: int, max_windows: int = 200, rollout_steps: int = ROLLOUT_STEPS) -> Protocol:
    """Return the measurements of a study: lead 1 and the longest trained lead, and rollouts in steps of both."""
    leads = tuple(sorted({1, lead_max}))
    return Protocol(leads, rollout_steps, max_windows, rollout_lead=min(lead_max, rollout_steps))


def scored_by(protocol: Protocol, held_out: HeldOut, run: RunConfig) -> HeldOut:
    """Return what launch/evaluate.py scores of a selection: without NaN and infinity, if the run skips them in training."""
    if run.data.bad_values == "refuse":
        return held_out
    return sound_beginnings(held_out, held_out.num_frames + max(protocol.rollout_steps, *protocol.leads))


def flags_of(protocol: Protocol) -> dict[str, object]:
    """Return the flags, by name, that make launch/evaluate.py measure the same."""
    leads = ",".join(map(str, protocol.leads))
    flags = {"leads": leads, "rollout": protocol.rollout_steps, "rollout-lead": protocol.rollout_lead}
    return flags | {"max-windows": protocol.max_windows, "batch": protocol.batch_size}
