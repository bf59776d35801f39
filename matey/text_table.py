"""Lays tables out as plain text, for the terminal and for files."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], num_text: int = 1, merge: int = 0) -> str:
    """Lay a table out, with a rule below its heads.

    Args:
        head: titles of the columns.
        rows: rows of text, each as long as ``head``.
        num_text: number of columns, from the left, that hold words and are set flush left; the others hold numbers.
        merge: number of columns, from the left, that are left empty where a row repeats the one above.
    """
    shown = [[*head]]
    for above, row in zip([head, *rows], rows, strict=False):
        alike = next((index for index in range(merge) if row[index] != above[index]), merge)
        shown.append([*[""] * alike, *row[alike:]])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    words = [
        [*map(str.ljust, row[:num_text], widths), *map(str.rjust, row[num_text:], widths[num_text:])] for row in shown
    ]
    lines = ["  ".join(row).rstrip() for row in words]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
