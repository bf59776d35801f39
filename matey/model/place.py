"""Checks the name of a model before Hugging Face asks its server for it, again and again for a minute."""

from __future__ import annotations

import os
import re
from pathlib import Path

from matey.config import shipped

_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def check_place(name: str | os.PathLike[str]) -> None:
    """Refuse a name that is no folder or file here and cannot name a model on the Hugging Face Hub.

    Raises:
        FileNotFoundError: the name is neither; Hugging Face raises an OSError too.
    """
    text = os.fspath(name)
    if os.path.exists(text):
        return
    first = Path(text).parts[:1]
    if not _ON_HUB.fullmatch(text) or text.startswith(".") or first[0] in shipped.FOLDERS:
        raise FileNotFoundError(
            f"There is no folder {text} here, and it is no owner/name of a model on the Hugging Face Hub; give the folder that "
            "save_pretrained wrote, such as model/ of a run."
        )
