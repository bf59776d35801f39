"""Makes pages of the site from notebooks that are stored with what they show."""

from __future__ import annotations

import json
from typing import Any


def notebook_page(text: str) -> str:
    """Return a notebook as Markdown: its words, its code, what the code printed, and pictures within the page."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += filter(None, map(_shown, cell.get("outputs", ())))
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if picture := "".join(data.get("image/png", "")):
        return f'<img alt="what this code shows" src="data:image/png;base64,{"".join(picture.split())}">'
    printed = "".join(output.get("text", data.get("text/plain", ""))).strip("\n")
    return f"````text\n{printed}\n````" if printed else ""
