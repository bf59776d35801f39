"""Makes the pages of the reference from the code: every key of the run YAML and of a description, every flag of a command."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import signal
from collections.abc import Iterator
from runpy import run_path
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from matey.commands.subcommands import scripts
from matey.config.description import DataDescription, FieldSource, ParameterSource, TimeSource
from matey.config.loading import section_at
from matey.config.schema import BACKENDS, CRITERIA, FINETUNE_MODES, LOSSES, SCHEMES, RunConfig
from matey.config.section import Section

REGISTRIES = {registry.check: registry for registry in (SCHEMES, BACKENDS, CRITERIA, LOSSES, FINETUNE_MODES)}
SETTINGS = """# Every setting

The keys of the run YAML, as its schema (`matey/config/schema.py`) has them. `--set section.key=value` overrides one. The same
names and defaults hold for `MateyConfig`, which takes those of the network. How DeepSpeed runs it is said in
[its own JSON](../ds_configs.md).
"""
COMMANDS = """# Every command

Each is a script of the repository and a subcommand of `matey`: `matey pretrain` is `python launch/pretrain.py`.
"""


def settings_page() -> str:
    """Return the page of all keys of the run YAML."""
    parts = [SETTINGS]
    for name, field in RunConfig.model_fields.items():
        section = section_at([name])
        required = " (required)" if field.is_required() else ""
        parts += [f"## {name}{required}", "", _first_sentence(section), "", *_table(section)]
    for name in ("data.sets", "train.groups"):
        section = section_at(name.split("."))
        parts += [f"## Each of {name}", "", _first_sentence(section), "", *_table(section)]
    about = "What a `matey.yaml` says of your own files, see [data](../data.md#your-own-data)."
    parts += ["## A description of data", "", about, ""]
    parts += _table(DataDescription)
    for title, section in (
        ("A field", FieldSource),
        ("A parameter", ParameterSource),
        ("The time of a snapshot by itself", TimeSource),
    ):
        parts += [f"### {title}", "", _first_sentence(section), "", *_table(section)]
    return "\n".join(parts)


def commands_page() -> str:
    """Return the page of all commands, each with the help that it prints."""
    parts = [COMMANDS]
    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "120"
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # scripts that train hold signals back before all else
    for name, path in scripts().items():
        parts += [f"## matey {name}", ""]
        for parser in _with_subcommands(_parser_of(path, name)):
            parts += ["```text", parser.format_help().strip(), "```", ""]
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    del os.environ["COLUMNS"]
    if width is not None:
        os.environ["COLUMNS"] = width
    return "\n".join(parts)


class _Parsing(Exception):
    """A script has made its parser and is about to use it."""


def _parser_of(path: Any, name: str) -> argparse.ArgumentParser:  # noqa: ANN401 (a path)
    """Return the parser that a script makes; nothing else of the script is run."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parsing(parser)

    parse, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, stop
    try:
        run_path(str(path))["main"]()
    except _Parsing as parsing:
        (parser,) = parsing.args
        parser.prog = f"matey {name}"
        return parser
    finally:
        argparse.ArgumentParser.parse_args = parse
    raise AssertionError(f"{path} parses no arguments")


def _with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in dict.fromkeys((name, below) for name, below in action.choices.items()):
                below.prog = f"{parser.prog} {name}"
                yield from _with_subcommands(below)


def _table(section: type[Section]) -> list[str]:
    rows = [
        f"| `{name}` | {_values(field)} | {_default(field)} | {_cell(field.description or '')} |"
        for name, field in section.model_fields.items()
    ]
    return ["| key | values | default | what |", "|---|---|---|---|", *rows, ""]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{json.dumps(value, default=list)}`".replace('"', "")


def _values(field: FieldInfo) -> str:
    """Say in words what a key may hold, with its bounds."""
    kind = _kind(field.annotation)
    return _cell(" ".join([kind, *_bounds(field.metadata)]).replace("text : ", "")).strip()


def _bounds(metadata: list[Any]) -> Iterator[str]:
    """Yield the names that a registry has, and the bounds of a number as ``from 0 to 1`` or ``above 0, below 1``."""
    found = [inner for each in metadata for inner in (each.metadata if isinstance(each, FieldInfo) else [each])]
    for each in found:
        if each_check := REGISTRIES.get(getattr(each, "func", None)):
            yield ": " + ", ".join(f"`{name}`" for name in each_check.own)
    words = {Gt: "above", Ge: "from", Lt: "below", Le: "to"}
    said = {
        word: getattr(each, kind.__name__.lower())
        for kind, word in words.items()
        for each in found
        if isinstance(each, kind)
    }
    if "above" in said and said["above"] >= said.get("from", said["above"]):
        said.pop("from", None)
    text = ", ".join(f"{word} {_number(bound)}" for word, bound in said.items())
    yield text.replace(", to ", ", at most " if "above" in said else " to ")


def _number(bound: float) -> str:
    return f"{bound:,.15g}" if abs(bound) < 1e7 else f"{bound:g}".replace("e+0", "e").replace("e+", "e")


def _kind(annotation: Any) -> str:  # noqa: ANN401 (any type of the schema)
    """Return the name of a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return " ".join([_kind(annotation.__origin__), *_bounds(list(annotation.__metadata__))])
    if origin is dict:
        return f"mapping of {_kind(args[0])} to {_kind(args[1])}"
    if origin in (tuple, list):
        inside = list(dict.fromkeys(_kind(arg) for arg in args if arg is not Ellipsis))
        return "list of " + re.sub(r"\b(number|text|section|list)\b", r"\1s", " or ".join(inside), count=1)
    if args and all(isinstance(arg, (str, int)) for arg in args):
        return ", ".join(f"`{arg}`" for arg in args)
    if args:
        return " or ".join(_kind(arg) for arg in args if arg is not type(None))
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return "section"
    names = {int: "whole number", float: "number", str: "text", bool: "true, false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _first_sentence(section: type[Section]) -> str:
    return inspect.cleandoc(section.__doc__ or "").split("\n\n")[0]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
