"""Counts the blocking calls of all cases, in separate processes for each number of ranks."""

from __future__ import annotations

from itertools import product

from matey.benchmark.sequence_speed import Point, points_of_ranks
from matey.benchmark.speed_cases import Case

SCHEMES, TOKEN_SETS = ("vit", "svit", "avit"), {"uniform": (8,), "mix": (16, 8), "mul": (16, 8)}


def blocking_points(model: str, ranks: int, stage: int) -> list[Point]:
    """Count the blocking calls of a step for every scheme and token set, on ranks that form one sequence group.

    Raises:
        RuntimeError: a rank failed; the message holds the end of its output.
    """
    cases = [
        Case(model, scheme=scheme, tokens=tokens, patches=patches, grid=(64, 64), frames=2, fields=2)
        for scheme, (tokens, patches) in product(SCHEMES, TOKEN_SETS.items())
    ]
    # A loss that looks around a cell has its own plan.
    by_loss = {"nrmse": cases, "gradient": cases[1:2]}
    of_losses = {loss: [case.to_json() for case in chosen] for loss, chosen in by_loss.items()}
    settings = {"cases": of_losses, "stage": stage, "prepared": True}
    return points_of_ranks("matey.benchmark.blocking_point", settings, ranks, "The count of blocking calls")
