"""Says which planes of cells are drawn true to scale; needs no PyTorch."""

from __future__ import annotations

from typing import Literal

LONGEST = 10
"""Largest ratio of the sides of a plane that is drawn to scale."""


def aspect_of(num_rows: int, height: float, width: float) -> Literal["equal", "auto"]:
    """Return Matplotlib's aspect of a plane: a line of cells, and a plane much longer than wide, are stretched to the panel.

    True to scale, nothing of them would be seen.
    """
    return "equal" if num_rows > 1 and 1 / LONGEST <= height / width <= LONGEST else "auto"
