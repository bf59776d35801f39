"""Reports the inputs of a model, such as a viscosity or a mask, that data lacks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matey.data.trajectories import TrajectorySet
from matey.mistakes import listed


def lacking_note(parameters: Sequence[str], given: Sequence[str], sets: Sequence[TrajectorySet]) -> str:
    """Return sentences on parameters and given fields that a model takes and data lacks; empty where nothing is lacking.

    Args:
        parameters: names of the parameters that the model takes.
        given: names of the given fields that the model takes; a field that a set has to predict is not lacking there.
        sets: the data sets.
    """
    return " ".join([*_on_parameters(parameters, sets), *_on_given(given, sets)])


def _on_parameters(names: Sequence[str], sets: Sequence[TrajectorySet]) -> Iterator[str]:
    counts: list[str] = []
    lacking: set[str] = set()
    for data in sets:
        of_each = [
            {name for name in names if math.isnan(about.parameters.get(name, math.nan))} for about in data.trajectories
        ]
        lacking.update(*of_each)
        number = sum(map(bool, of_each))
        counts += [f"{number} of {data.num_trajectories} of {data.system}"] if number else []
    if not lacking:
        return
    yield (
        f"The model takes {listed(sorted(lacking))}, which trajectories lack, {', '.join(counts)}: it is told that they are "
        "not known."
    )


def _on_given(names: Sequence[str], sets: Sequence[TrajectorySet]) -> Iterator[str]:
    for data in sets:
        has = {*data.given, *data.left_out, *data.fields}
        if lacking := [name for name in names if name not in has]:
            yield f"The model takes the given fields {listed(lacking)}, which {data.system} lacks: it does without them there."
