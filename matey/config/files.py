"""Finds and reads the files of a configuration: those that come with the program, and YAML and JSON that people write.

    a checkout                          as installed from a wheel, see setup.py
    launch/ tools/ ds_configs/ models/  matey/shipped/launch/ tools/ ds_configs/ models/

A configuration is named after its file: ``demo`` is launch/runs/demo.yaml, ``zero1`` is ds_configs/zero1.json.

Text is in UTF-8, of moderate size and depth, made of plain values. YAML that a parser accepts but that can break a program is
refused: aliases, which can expand to more than any memory holds, merges, tags, and keys that come twice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from matey.mistakes import nearest_name, one_line

MAX_BYTES = 4 * 2**20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it


class PlainTextError(ValueError):
    """A text that is not plain YAML or JSON; the message is a clause to put after the name of the file."""


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        PlainTextError: the file is not UTF-8, or larger than any configuration.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:  # only so many bytes: it may be a device, or a checkpoint instead of its YAML
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlainTextError(f"is larger than {MAX_BYTES // 2**20} MiB, which no configuration is; give another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlainTextError(f"is not text in UTF-8 (byte {error.start}); save it in that encoding") from None


def parse_yaml(text: str) -> Any:  # noqa: ANN401
    """Return the value of a text in YAML.

    Raises:
        PlainTextError: the text is not YAML, or not plain.
    """
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):  # which can expand to more than any memory holds
                raise PlainTextError(f"uses the alias *{event.anchor}; write out what it stands for")
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            _check_keys(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except PlainTextError:
        raise
    # Python itself refuses a date such as 2020-13-45, or an integer of thousands of digits.
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise PlainTextError(f"is not YAML: {one_line(error)}") from None


def _check_keys(node: yaml.Node | None) -> None:
    """Raise PlainTextError if a mapping has a key twice, of which YAML would take the last one silently."""
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise PlainTextError(
                        f"has the key {key.value!r} twice (line {key.start_mark.line + 1}); remove one"
                    )
                names.add(key.value)
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        for each in part if isinstance(part, tuple) else (part,):
            _check_keys(each)


def parse_json(text: str) -> Any:  # noqa: ANN401
    """Return the value of a text in JSON.

    Raises:
        PlainTextError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlainTextError(f"is not JSON: {one_line(error)}") from None


_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = ("launch", "tools", "ds_configs", "models")
KINDS = {"launch/runs": ".yaml", "ds_configs": ".json"}
"""Folders of configurations, of runs and of DeepSpeed's engine, and the suffix of their files."""


def is_installed() -> bool:
    """Whether the package was installed from a wheel, and is not in a checkout."""
    return (_PACKAGE / "shipped").is_dir()


ROOT = _PACKAGE / "shipped" if is_installed() else _PACKAGE.parent
"""The folder that holds `FOLDERS`: the repository's root in a checkout."""


def configurations(folder: str) -> dict[str, Path]:
    """Return the configurations of a kind by name, see `KINDS`."""
    return {path.stem: path for path in sorted((ROOT / folder).glob(f"*{KINDS[folder]}"))}


def find_shipped(path: str | Path) -> Path:
    """Return a path if it exists, else the file or folder of that name that comes with the program, else the path.

    Args:
        path: a path; or a name, such as ``demo`` or ``zero1.json``; or a path from the root of the repository, such as
            ``launch/runs/demo.yaml`` or ``models/matey-micro``.
    """
    path = Path(path)
    # For names that are too long or hold null bytes, os.path returns False where pathlib raises.
    if path.is_absolute() or os.path.exists(path) or ".." in path.parts or not path.parts:
        return path
    if path.parts[0] in FOLDERS and os.path.exists(ROOT / path):
        return ROOT / path
    if len(path.parts) == 1:
        for folder, suffix in KINDS.items():
            found = ROOT / folder / f"{path.name.removesuffix(suffix)}{suffix}"
            if os.path.isfile(found):
                return found
        if os.path.isdir(ROOT / "models" / path):
            return ROOT / "models" / path
    return path


def hint_of_file(path: str | Path) -> str:
    """Return `` Did you mean 'x'?`` if a missing path resembles the name of a configuration that comes with the program."""
    name = Path(path)
    if len(name.parts) != 1 and name.parent.as_posix() not in KINDS:
        return ""
    return nearest_name(name.stem, [known for folder in KINDS for known in configurations(folder)])
