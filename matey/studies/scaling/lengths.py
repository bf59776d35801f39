"""Finds the longest sequence that fits a memory limit: chooses samples, measures them on ranks, and interpolates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from matey.benchmark.sequence_speed import longer, longest, run_point
from matey.benchmark.speed_cases import Case
from matey.config import RunConfig
from matey.data import open_dataset
from matey.model.blocks import scheme_keys
from matey.model.configuration import model_config
from matey.tokens.tokenize import tokenize
from matey.train.memory import activation_bytes


@dataclass(frozen=True)
class Lengths:
    """A search for the longest sequence that fits.

    Attributes:
        case: the sample on one rank, with the run's model, from `matey.benchmark.speed_cases.Case.to_json`.
        num_tokens: number of tokens of the sample.
        activation_bytes: bytes of the sample's activations on one rank; until measured, those of the blocks, which training
            estimates in advance.
        limit: largest bytes of a rank's activations; None until measured for the sample on one rank.
        is_measured: whether the activations of the sample on one rank are measured.
    """

    case: dict[str, Any]
    num_tokens: int
    activation_bytes: int
    limit: float | None
    is_measured: bool = False

    def expected(self, ranks: int) -> float | None:
        """Return how many tokens should fit on some ranks if these share activations evenly."""
        return None if self.limit is None else self.num_tokens * self.limit / self.activation_bytes * ranks

    def measured(self, seconds: float) -> Lengths:
        """Measure the sample's activations on one rank within a time limit in seconds; they are the limit if there is none."""
        taken = max(run_point(Case.from_json(self.case), 1, limit=seconds)["activation_bytes"])
        return replace(self, activation_bytes=taken, limit=self.limit or taken, is_measured=True)

    def measure(self, ranks: int, seconds: float) -> list[dict[str, Any]]:
        """Measure two samples on some ranks: one that should fit, and one chosen to fit by the first one's memory.

        Raises:
            RuntimeError: a rank failed, or a sample took longer than ``seconds``.
        """
        case = Case.from_json(self.case)
        expected = self.expected(ranks)
        assert expected is not None and self.limit is not None, "the limit is measured first"
        first = longer(case, expected / self.num_tokens)
        taken = run_point(first, ranks, limit=seconds)
        second = longer(case, first.grid[0] / case.grid[0] * self.limit / max(taken["activation_bytes"]))
        if second.grid == first.grid:
            second = replace(first, grid=(first.grid[0] + case.coarse_cells, *first.grid[1:]))
        return [taken, run_point(second, ranks, limit=seconds)]

    def longest(self, points: Sequence[dict[str, Any]]) -> float | None:
        """Return how many tokens fit, on a line through two points; None if a rank exceeds the limit without tokens."""
        assert self.limit is not None, "the limit is measured before any point"
        tokens = longest(points, self.limit)
        return tokens if tokens > 0 else None


def lengths_of(
    run: RunConfig, grid: tuple[int, ...] | None, limit: float | None, precision: str, *, can_measure: bool
) -> Lengths:
    """Return the search for the longest sequence of a run.

    Args:
        run: the run with the network and history to use. A share of the patches is refined (a quarter if the run has
            another rule), because the measured samples are not the run's own.
        grid: cells of a sample for one rank; by default those of the run's first data set.
        limit: largest bytes of a rank's activations; by default those of this sample on one rank.
        precision: precision of weights and activations, as in `matey.planning.engine.EngineSettings`.
        can_measure: whether the default limit is measured instead of estimated as in training.
    """
    data = open_dataset(run.data.sets[0].path, run.data.sets[0].description)
    grid = grid or tuple(data.trajectories[0].grid[-2 if data.trajectories[0].grid[0] == 1 else -3 :])
    share = run.tokens.refine if run.tokens.rule == "fraction" else Case.refine
    tokens = run.tokens.model_copy(update={"rule": "fraction", "refine": share})
    model = run.model.model_copy(update={"fields": (), "given": (), "parameters": ()})
    case = Case(
        grid=grid,
        frames=run.data.history,
        fields=len(data.fields),
        batch=1,
        checkpoint_blocks=run.parallel.checkpoint_blocks,
        dtype=getattr(torch, precision),
        config=model_config(run.model_copy(update={"model": model, "tokens": tokens})).to_dict(),
    )
    config = case.make_config()
    num_tokens = tokenize([case.make_batch()], config.patches, config.refinement).layout.num_tokens
    attentions = len(scheme_keys(config.scheme, config.patches))
    kept = activation_bytes(config, num_tokens, attentions, case.checkpoint_blocks, case.dtype.itemsize)
    return Lengths(case.to_json(), num_tokens, kept, limit or (None if can_measure else kept))
