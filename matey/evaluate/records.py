"""The numbers of an evaluation: one record per system, field, kind of forecast and lead, and their file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from matey.evaluate.metrics import NRMSE_EPSILON, nrmse, vrmse
from matey.evaluate.seams import jumps
from matey.fields import FieldBatch

Kind = Literal["lead", "rollout"]

ALL_FIELDS = "all"


@dataclass(frozen=True)
class Record:
    """Mean errors over all windows of one system.

    Attributes:
        system: name of the PDE system.
        field: name of the field, or ``all`` for the mean over the fields.
        kind: ``lead``, predicted at once, or ``rollout``, reached in steps of one snapshot.
        lead: snapshots from the last frame of the history to the target.
        nrmse: of the model.
        vrmse: of the model.
        persistence_nrmse: of the last frame again.
        persistence_vrmse: of the last frame again.
        num_windows: how many windows the means are over.
        seams: mean jump of the error across the borders of patches over the mean jump inside them: 1 shows no patches. Not a
            number for rollouts, and where there are no borders or no errors.
    """

    system: str
    field: str
    kind: Kind
    lead: int
    nrmse: float
    vrmse: float
    persistence_nrmse: float
    persistence_vrmse: float
    num_windows: int
    seams: float = math.nan

    @property
    def ratio(self) -> float:
        """NRMSE over that of persistence: below 1 the model knows more than the last frame."""
        if self.persistence_nrmse == 0:
            return 1.0 if self.nrmse == 0 else math.inf
        return self.nrmse / self.persistence_nrmse


class ErrorSums:
    """Sums errors batch by batch."""

    def __init__(self) -> None:
        """Start with no windows."""
        self._sums: dict[tuple[str, str, Kind, int], tuple[Tensor, int]] = {}

    def add(
        self,
        batch: FieldBatch,
        kind: Kind,
        lead: int,
        prediction: Tensor,
        baseline: Tensor,
        target: Tensor,
        patch_of_cell: Tensor | None = None,
    ) -> None:
        """Add the errors of ``prediction`` and ``baseline`` at ``lead``, each ``(b, f, z, y, x)`` in physical units.

        With ``patch_of_cell`` ``(b, z, y, x)`` the jumps at the borders of patches are added too.
        """
        errors = [metric(p, target) for p in (prediction, baseline) for metric in (nrmse, vrmse)]
        if patch_of_cell is None:
            errors += 2 * [torch.full_like(errors[0], math.nan)]
        else:
            # In units of the target's size, so that they can be averaged over the fields.
            size = target.square().mean(dim=(2, 3, 4)).sqrt() + NRMSE_EPSILON
            errors += list(jumps(prediction - target, patch_of_cell) / size)
        errors = torch.stack(errors).double()
        for row, field in enumerate(batch.fields):
            self._add((batch.system, field, kind, lead), errors[:, :, row])
        self._add((batch.system, ALL_FIELDS, kind, lead), errors.mean(dim=2))

    def records(self) -> list[Record]:
        """Return the means, in the order in which their first windows came."""
        records = []
        for (system, field, kind, lead), (sums, num_windows) in self._sums.items():
            model_nrmse, model_vrmse, persistence_nrmse, persistence_vrmse, across, inside = (
                sums / num_windows
            ).tolist()
            records.append(
                Record(
                    system=system,
                    field=field,
                    kind=kind,
                    lead=lead,
                    nrmse=model_nrmse,
                    vrmse=model_vrmse,
                    persistence_nrmse=persistence_nrmse,
                    persistence_vrmse=persistence_vrmse,
                    num_windows=num_windows,
                    seams=across / inside if inside else math.nan,
                )
            )
        return records

    def _add(self, key: tuple[str, str, Kind, int], errors: Tensor) -> None:
        """Add errors ``(6, b)`` to the sums of a record."""
        sums, num_windows = self._sums.get(key, (torch.zeros(6, dtype=torch.float64), 0))
        self._sums[key] = (sums + errors.sum(dim=1), num_windows + errors.shape[1])


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as a JSON list; an error that is not finite, of a rollout that blew up, becomes null."""
    # JSON knows neither NaN nor infinity, and most readers refuse a file in which Python wrote them.
    rows = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in map(asdict, records)
    ]
    path.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
