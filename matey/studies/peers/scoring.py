"""Scores any model that predicts frames on the windows on which launch/evaluate.py scores MATEY."""

from __future__ import annotations

from matey.data import read_windows
from matey.evaluate.evaluation import Protocol, score_rollout, tasks_of
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import ErrorSums, Record
from matey.evaluate.rollout import Forecaster
from matey.evaluate.spectra import SpectraSums

ROLLOUT_STEPS = 10


def protocol_of(lead_max: int, max_windows: int = 200) -> Protocol:
    """Return what a comparison measures: lead 1 and the longest trained, and rollouts in steps of both."""
    leads = tuple(sorted({1, lead_max}))
    return Protocol(leads, ROLLOUT_STEPS, max_windows, rollout_lead=min(lead_max, ROLLOUT_STEPS))


def flags_of(protocol: Protocol) -> dict[str, object]:
    """Return the flags, by name, with which launch/evaluate.py measures the same."""
    leads = ",".join(map(str, protocol.leads))
    flags = {"leads": leads, "rollout": protocol.rollout_steps, "rollout-lead": protocol.rollout_lead}
    return flags | {"max-windows": protocol.max_windows, "batch": protocol.batch_size}


def score(model: Forecaster, data: HeldOut, protocol: Protocol) -> list[Record]:
    """Return the records of a model's forecasts and rollouts."""
    sums, spectra = ErrorSums(), SpectraSums()
    for task in tasks_of(data, protocol):
        for windows in task.chunks(protocol.batch_size):
            if task.kind != "lead":
                score_rollout(model, data, task, windows, sums, spectra)
                continue
            for batch in read_windows(data.sets, windows, data.num_frames):
                sums.add(batch, task.kind, task.lead, model.predict(batch).cpu(), batch.known_target)
    return sums.records()
