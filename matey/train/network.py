"""The network that a run asks for, and whether it fits the data."""

from __future__ import annotations

from collections.abc import Sequence

from matey.config import ConfigError, RunConfig
from matey.data.trajectories import TrajectorySet
from matey.fields import field_rows
from matey.model.configuration import MateyConfig
from matey.tokens.refinement import check_window


def with_vocabulary(run: RunConfig, sets: Sequence[TrajectorySet]) -> RunConfig:
    """Fill in the field vocabulary from the data, or check the given one.

    Raises:
        ConfigError: the data holds a field that ``model.fields`` lacks.
    """
    if run.model.fields is None:
        names = tuple(dict.fromkeys(name for data in sets for name in data.fields))
        return run.model_copy(update={"model": run.model.model_copy(update={"fields": names})})
    for data in sets:
        try:
            field_rows(data.fields, run.model.fields)
        except ValueError as error:
            raise ConfigError(f"{data.system}: {error}") from None
    return run


def check_fit(run: RunConfig, sets: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if the histories cannot be cut into tokens as the run asks."""
    refinement = model_config(run).refinement
    for data in sets:
        for trajectory in data.trajectories:
            try:
                check_window((run.data.history, *trajectory.grid), run.tokens.patches, refinement)
            except ValueError as error:
                raise ConfigError(f"{trajectory.source}: {error}") from None


def model_config(run: RunConfig) -> MateyConfig:
    """Return the architecture that the run asks for."""
    return MateyConfig.from_size(
        run.model.size,
        fields=run.model.fields,
        patches=run.tokens.patches,
        scheme=run.model.scheme,
        token_set=run.tokens.set,
        refine_rule=run.tokens.rule,
        refine_amount=run.tokens.refine,
        refine_values=run.tokens.values,
        refine_change=run.tokens.change,
        drop_path=run.model.drop_path,
        attention=run.model.attention,
        predict=run.model.predict,
        history=run.data.history,
    )
