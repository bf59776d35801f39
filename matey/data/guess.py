"""A description as far as it can be guessed, and its YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from matey.config.description import TODO
from matey.mistakes import printable


@dataclass(frozen=True)
class Guess:
    """A description as far as it can be guessed.

    Attributes:
        tree: the description, with TODO for each open question.
        comments: notes to write beside a key, by the key's path, such as ``boundary.x``.
        notes: notes on the file as a whole.
    """

    tree: dict[str, Any]
    comments: dict[str, str]
    notes: list[str]

    @property
    def questions(self) -> list[str]:
        """Paths of the keys that are left open."""
        groups = {key: value for key, value in self.tree.items() if isinstance(value, dict)}
        nested = {f"{key}.{name}": item for key, value in groups.items() for name, item in value.items()}
        return [key for key, value in (self.tree | nested).items() if value == TODO]

    @property
    def text(self) -> str:
        """The description as YAML."""
        lines = [f"# {printable(note)}" for note in self.notes]
        for key, value in self.tree.items():
            comment = self._comment(key)
            if isinstance(value, dict) and value:
                lines.append(f"{key}:{comment}")
                lines += [
                    f"  {_flow(name)}: {_flow(item)}{self._comment(f'{key}.{name}')}" for name, item in value.items()
                ]
            else:
                lines.append(f"{key}: {_flow(value)}{comment}")
        return "\n".join(lines) + "\n"

    @property
    def provisional(self) -> dict[str, Any] | None:
        """The description with neutral answers, good enough to draw the fields; None where the axes are not known."""
        if TODO in (self.tree["axes"], self.tree["spacing"]):
            return None
        answers = {"system": "unnamed", "time_step": 1.0}
        filled: dict[str, Any] = {
            key: answers[key] if value == TODO else value for key, value in self.tree.items() if key != "files"
        }
        filled["fields"] = {
            name: of for name, of in filled["fields"].items() if "file" not in of or isinstance(of, str)
        }
        filled["spacing"] = {axis: 1.0 if step == TODO else step for axis, step in self.tree["spacing"].items()}
        return filled | {"boundary": dict.fromkeys(self.tree["boundary"], "open")}

    def _comment(self, key: str) -> str:
        return f"  # {printable(self.comments[key])}" if key in self.comments else ""


def _flow(value: object) -> str:
    """Return a value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("\n...\n").strip()
