"""Fills the templates of self-contained HTML pages, which load nothing from outside; all text in them is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from matey.report.pictures import to_png
from matey.text_table import text_table

PAGES = Environment(
    loader=PackageLoader("matey.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def embedded(picture: bytes) -> str:
    """Return the address by which a page holds a picture, a PNG or an animated GIF."""
    kind = "gif" if picture.startswith(b"GIF") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def by_system(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Return items by the name of their system, in the order in which the systems first appear."""
    return {
        system: [each for each in items if each.system == system] for system in dict.fromkeys(x.system for x in items)
    }


PAGES.filters.update(by_system=by_system, embedded=embedded, png=to_png)


def page(template: str, title: str, **values: Any) -> str:  # noqa: ANN401 (whatever the template shows)
    """Return a whole HTML document from a template in ``templates/``, with a list of its contents above its first chapter."""
    head, *chapters = PAGES.get_template(template).render(title=title, **values).split("<h2>")
    titles = [chapter.partition("</h2>")[0] for chapter in chapters]
    links = [f'<a href="#part-{number}">{title}</a>' for number, title in enumerate(titles)]
    parts = [f'<h2 id="part-{number}">{chapter}' for number, chapter in enumerate(chapters)]
    return "".join([head, f"<nav>{' '.join(links)}</nav>\n" if links else "", *parts])


class Table(NamedTuple):
    """A table of text.

    Attributes:
        head: titles of the columns.
        rows: rows, each as long as ``head``.
        num_text: number of columns, from the left, that hold words; the others hold numbers.
        best: index of the column to set off in each row; empty for none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_text: int = 1
    best: Sequence[int] = ()

    def text(self, merge: int = 0) -> str:
        """Return the table as plain text, with a star in the columns to set off; empty without rows."""
        if not self.rows:
            return ""
        if not self.best:
            return text_table(self.head, self.rows, self.num_text, merge)
        rows = [
            [
                *row[: self.num_text],
                *(f"{cell}{' *'[at == best]}" for at, cell in enumerate(row) if at >= self.num_text),
            ]
            for row, best in zip([self.head, *self.rows], [-1, *self.best], strict=True)
        ]
        return text_table(rows[0], rows[1:], self.num_text, merge)
