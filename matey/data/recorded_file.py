"""The entry of a file in the record of a run's split."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from matey.data.time_blocks import Span


@dataclass(frozen=True)
class FileParts:
    """A file and the part of each of its trajectories.

    Attributes:
        num_bytes: size of the file.
        content: hash of the names, shapes and time steps of its trajectories.
        parts: name of each trajectory mapped to ``train``, ``valid``, ``test`` or ``unused``.
        changed: modification time of the file in nanoseconds; 0 where it has none.
        prints: fingerprints of all or some of its trajectories, by name of the trajectory.
    """

    num_bytes: int
    content: str
    parts: dict[str, str]
    changed: int = 0
    prints: dict[str, str] = field(default_factory=dict)

    def is_as(self, other: FileParts) -> bool:
        """Return whether both describe the same trajectories, whatever their parts and values."""
        return (self.num_bytes, self.content) == (other.num_bytes, other.content)

    def spans_of(self, span: Span) -> list[tuple[Span, str]]:
        """Return the recorded frames of a span's trajectory, whole or in blocks, each with its part."""
        return self._spans.get(span.trajectory, [])

    @cached_property
    def _spans(self) -> dict[str, list[tuple[Span, str]]]:
        found: dict[str, list[tuple[Span, str]]] = {}
        for name, part in self.parts.items():
            found.setdefault((own := Span.named(name)).trajectory, []).append((own, part))
        return found

    def has_values_of(self, other: FileParts) -> bool:
        """Return whether the fingerprints that both have are the same."""
        return all(self.prints[name] == other.prints[name] for name in self.prints.keys() & other.prints.keys())
