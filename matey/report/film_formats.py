"""The formats of films, and whether their programs are installed; imports nothing slow."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


def film_problem(path: Path) -> str:
    """Return the reason why a film of this name cannot be written; empty if it can."""
    if path.suffix not in (".gif", ".mp4"):
        return f"{path} ends in {path.suffix or 'no suffix'}; a film is a .gif or an .mp4."
    if path.suffix == ".mp4" and ffmpeg() is None:
        return f"{path} needs ffmpeg, which is not installed: pip install 'matey-pde[forecast]', or write a .gif."
    return ""


def ffmpeg() -> str | None:
    """Return the path of the system's or a package's ffmpeg; None if there is neither."""
    found = shutil.which("ffmpeg")
    if found is None and find_spec("imageio_ffmpeg") is not None:
        found = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    return found
