"""Finds a model by its name before Hugging Face asks its server for it, again and again for a minute."""

from __future__ import annotations

import os
import re
from pathlib import Path

from matey.config import shipped
from matey.mistakes import Mistake

ADAPTER = "adapter_config.json"
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def place_of(name: str | os.PathLike[str]) -> str:
    """Return the folder of a model that comes with the program, or any other name as it is.

    Raises:
        Mistake: the folder holds an adapter, whose file names a model that Hugging Face would look for.
        FileNotFoundError: the name is no folder or file here, and cannot be that of a model on the Hugging Face Hub; Hugging
            Face raises an OSError too.
    """
    text = os.fspath(name)
    if os.path.lexists(os.path.join(text, ADAPTER)):
        raise Mistake(
            f"{text} holds {ADAPTER}, which no model of MATEY has; remove it, or take a model that MATEY saved."
        )
    if os.path.exists(text):
        return text
    if text and (found := shipped.find(text)).is_dir():
        return str(found)
    first = Path(text).parts[:1]
    if not _ON_HUB.fullmatch(text) or text.startswith(".") or first[0] in shipped.FOLDERS:
        raise FileNotFoundError(
            f"There is no folder {text} here, and it is no owner/name of a model on the Hugging Face Hub; give the folder that "
            "save_pretrained wrote, such as model/ of a run."
        )
    return text
