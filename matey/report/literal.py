"""Texts of users in pictures; needs no PyTorch."""

from __future__ import annotations


def literal(text: str) -> str:
    """Return a text that a picture shows as it is: matplotlib takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")
