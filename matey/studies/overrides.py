"""Refuses overrides of what a study itself states for each of its trainings; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matey.studies.folder import StudyError
from matey.studies.pretraining.cases import Case

OF_ALL = dict.fromkeys(("output.dir", "train.seed"), "a study gives each training its own; see --out and --seeds.")
NAMED = ("model.", "tokens.", "data.")
"""Sections that make a model what its name says; its steps and its share of a machine may be overridden, to try a study."""


def check_overrides(settings: Iterable[str], own: Mapping[str, str]) -> None:
    """Check overrides, ``KEY=VALUE`` each, of a key, of a whole section, or of a part of a key.

    Args:
        settings: the overrides.
        own: the sentence to say by each key that the study states itself.

    Raises:
        StudyError: an override names such a key.
    """
    for key in (setting.partition("=")[0].strip() for setting in settings):
        for mine, reason in own.items():
            if f"{mine}.".startswith(f"{key}.") or f"{key}.".startswith(f"{mine}."):
                raise StudyError(f"--set {key}: {reason}")


def stated_by(cases: Iterable[Case]) -> dict[str, str]:
    """Return what models of a study state for themselves, for `check_overrides`: their names would be those of other models."""
    models: dict[str, list[str]] = {}
    for case in cases:
        keys = [setting.partition("=")[0] for setting in case.settings] + ["data.sets"] * bool(case.data)
        for key in keys:
            models.setdefault(key, []).append(case.name)
    return {
        key: f"{_some(dict.fromkeys(names))} would not be what the name says; leave it out, or choose other --models."
        for key, names in models.items()
        if key.startswith(NAMED)
    }


def _some(names: Iterable[str]) -> str:
    """Return the first names, and how many others there are."""
    first, *others = names
    return f"{first} (and {len(others)} more)" if others else first
