"""Draws curves as text: a Braille character is 2 x 4 dots, and the axis of values is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

# Bit of each dot of a Braille character, by column and then by row from the top.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
LABEL = 9  # columns left of the plot, for the values at its top and bottom


@dataclass(frozen=True)
class Curve:
    """A curve to draw.

    Attributes:
        name: name in the legend below the plot.
        places: steps, one for each value.
        values: values; those that are not positive and finite are left out.
        colour: name of a colour of rich.
    """

    name: str
    places: Sequence[float]
    values: Sequence[float]
    colour: str


def text_curves(curves: Sequence[Curve], width: int, height: int) -> list[Text]:
    """Return lines of text: ``height`` lines for the plot, one for its axis, and one that names the curves.

    Args:
        curves: the curves, later ones over earlier ones.
        width: total number of columns.
        height: number of lines of the plot.
    """
    points = [
        [(x, math.log10(y)) for x, y in zip(curve.places, curve.values, strict=True) if 0 < y < math.inf]
        for curve in curves
    ]
    if not any(points):
        return []
    columns = max(10, width - LABEL - 1)
    last = max(x for own in points for x, _ in own)
    low, high = (end(y for own in points for _, y in own) for end in (min, max))
    cells = [[(0, "")] * columns for _ in range(height)]
    for curve, own in zip(curves, points, strict=True):
        for x, y in _filled(own):
            column = round((2 * columns - 1) * x / last) if last else 0
            row = round((4 * height - 1) * ((high - y) / (high - low) if high > low else 0.5))
            dots, _ = cells[row // 4][column // 2]
            cells[row // 4][column // 2] = (dots | DOTS[column % 2][row % 4], curve.colour)
    lines = []
    for number, row_of_cells in enumerate(cells):
        ends = {0: f"{10**high:.3g}", height - 1: f"{10**low:.3g}"}
        line = Text(f"{ends.get(number, ''):>{LABEL - 1}} ")
        for dots, colour in row_of_cells:
            line.append(chr(0x2800 + dots) if dots else " ", style=colour)
        lines.append(line)
    lines.append(Text(f"{'':{LABEL}}0{f'step {last:g}':>{columns - 1}}", style="dim"))
    if len(curves) > 1:
        names = Text(" " * LABEL)
        for curve in curves:
            names.append(f"{curve.name}   ", style=curve.colour)
        lines.append(names)
    return lines


def _filled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points with further ones on the straight lines between them, so that few points also make a curve."""
    filled = list(points[:1])
    between = max(1, 400 // max(1, len(points)))
    for (x, y), (next_x, next_y) in zip(points, points[1:], strict=False):
        shares = [part / between for part in range(1, between + 1)]
        filled += [(x + share * (next_x - x), y + share * (next_y - y)) for share in shares]
    return filled
