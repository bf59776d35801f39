"""The pieces of a self-contained HTML page: frame, style sheet, tables and figures; it loads nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE_SHEET = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #63676d; --rule: #dcdee2; --blue: #0072b2; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e8; --soft: #a2a7ad; --rule: #3a3f45; --blue: #6cb8ee; --paper: #16181b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 62rem; color: var(--ink); background: var(--paper);
       font: 16px/1.55 Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .2rem; font-weight: 600; }
h2 { font-size: 1.25rem; margin: 3rem 0 .5rem; font-weight: 600; }
h3 { font-size: 1rem; margin: 2rem 0 .25rem; font-weight: 600; }
p { max-width: 44rem; margin: .4rem 0 .8rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
code { font: .82rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .8rem 0 1.2rem; font: .85rem/1.4 system-ui, "DejaVu Sans", sans-serif;
        font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem .28rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; border-bottom: 1.5px solid var(--ink); }
th.text, td.text { text-align: left; }
td.best { color: var(--blue); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.4rem; margin: 1.2rem 0; font-size: .95rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.4rem; }
figure img { width: 100%; height: auto; display: block; background: #fff; }
summary { cursor: pointer; color: var(--blue); }
a { color: var(--blue); }
.wide { overflow-x: auto; }
@media (max-width: 40rem) {  /* a phone: words fit, wide tables and pictures are pushed aside within themselves */
  body { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
  dl { display: block; }
  dt { margin-top: .5rem; }
  figure img { min-width: 42rem; }
}
@media print { body { padding: 0; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole HTML document; ``title`` is plain text, ``body`` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(level: int, text: str) -> str:
    """Return a heading of plain text."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """Return terms with their values, both plain text."""
    rows = "".join(f"<dt>{escape(term)}</dt><dd>{escape(value)}</dd>" for term, value in items)
    return f"<dl>{rows}</dl>"


def link(text: str, address: str) -> str:
    """Return a link; both are plain text."""
    return f'<a href="{escape(address, quote=True)}">{escape(text)}</a>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], num_text: int = 1, best: int | Sequence[int] | None = None
) -> str:
    """Return a table of plain text.

    Args:
        head: titles of the columns.
        rows: rows of text, each as long as ``head``.
        num_text: number of columns, from the left, that hold words and are set flush left; the others hold numbers.
        best: index of the column to highlight, the same in all rows or one per row.
    """

    def cells(tag: str, row: Sequence[str], marked: int | None = None) -> str:
        styles = ["text" if i < num_text else "best" if i == marked else "" for i in range(len(row))]
        marks = [f' class="{style}"' if style else "" for style in styles]
        return "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    columns = best if isinstance(best, Sequence) else [best] * len(rows)
    body = "\n".join(f"<tr>{cells('td', row, column)}</tr>" for row, column in zip(rows, columns, strict=True))
    title = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="wide"><table>\n{title}\n<tbody>\n{body}\n</tbody>\n</table></div>'


def figure(picture: bytes, caption: str, kind: str = "png") -> str:
    """Return a picture, a ``png`` or an animated ``gif``, embedded in the page."""
    source = base64.b64encode(picture).decode("ascii")
    text = escape(caption, quote=True)
    image = f'<div class="wide"><img alt="{text}" src="data:image/{kind};base64,{source}"></div>'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def folded(summary: str, content: str) -> str:
    """Return HTML that opens under a line of plain text."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"
