"""Writes docs/reference/ from the code: every key of the run YAML and of a description, every flag of a command.

python docs/reference.py writes the pages; `make docs` does so, too, and a test compares them with the code.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from matey.commands.subcommands import scripts
from matey.config.loading import section_inside
from matey.config.schema import BACKENDS, CRITERIA, FINETUNE_MODES, LOSSES, SCHEMES, RunConfig
from matey.config.section import Section

FOLDER = Path(__file__).resolve().parent / "reference"
SETTINGS = """# Every key of the run YAML

`--set tokens.refine=0.1` overrides a key for one run. `MateyConfig` has
the keys of the network under the same names. What DeepSpeed does is set in [its own JSON](../../ds_configs/README.md).
This page is made from the code by `python docs/reference.py`.
"""
REGISTRIES = (SCHEMES, BACKENDS, CRITERIA, LOSSES, FINETUNE_MODES)
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
BOUNDS = {Gt: "above", Ge: "at least", Lt: "below", Le: "at most"}
LARGE = 10**6
"""Bounds from here on only refuse slips of the keyboard, and are not said."""
COMMANDS = """# Every command and its flags

`matey pretrain` is `python launch/pretrain.py` in a checkout, and so on. `matey COMMAND --help` prints the same.
This page is made from the code by `python docs/reference.py`.
"""


def settings_page() -> str:
    """Return the page of all keys of the run YAML."""
    parts = [SETTINGS]
    for path, section in sections().items():
        rows = []
        for key in keys(path, section):
            type_ = key.type if key.unit == "none" else f"{key.type}; in {key.unit}"
            rows.append(
                f"| `{key.path.rpartition('.')[2]}` | {' | '.join(map(_cell, (type_, key.default, key.meaning)))} |"
            )
        parts += [
            f"## {path}",
            "",
            about(section),
            "",
            "| key | type and unit | default | what it is |",
            "|---|---|---|---|",
        ]
        parts += [*rows, ""]
    return "\n".join(parts)


@dataclass(frozen=True)
class Key:
    """What there is to say of a key, in words."""

    path: str
    type: str
    default: str
    unit: str
    meaning: str


def sections(section: type[Section] = RunConfig, above: str = "") -> dict[str, type[Section]]:
    """Return all sections below one by their paths, such as ``data.sets``; a section that lies in a list counts once."""
    found: dict[str, type[Section]] = {}
    for name, field in section.model_fields.items():
        if inside := section_inside(field.annotation):
            found |= {f"{above}{name}": inside} | sections(inside, f"{above}{name}.")
    return found


def about(section: type[Section]) -> str:
    """Return the sentence that a section is described by."""
    return " ".join(inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].split())


def keys(path: str, section: type[Section]) -> list[Key]:
    """Return the keys of a section at a path, in their order; a description ends in its unit: "time to wait [s]"."""
    found = []
    for name, field in section.model_fields.items():
        meaning, _, unit = " ".join((field.description or "").split()).removesuffix("]").partition(" [")
        value = field.get_default(call_default_factory=True)
        if isinstance(value, Section):
            default = "the defaults of its keys"
        else:
            default = "required" if field.is_required() else json.dumps(value, default=list).replace('"', "")
        type_ = " ".join([_type(field.annotation), *_bounds(field.metadata)]).replace("text : ", "")
        found.append(Key(f"{path}.{name}".lstrip("."), type_, default.replace("null", "none"), unit or "none", meaning))
    return found


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """Yield the names that a registry has, and the bounds of a number."""
    flat = [inner for each in metadata for inner in (each.metadata if isinstance(each, FieldInfo) else [each])]
    bounds = {BOUNDS[type(each)]: getattr(each, type(each).__name__.lower()) for each in flat if type(each) in BOUNDS}
    for registry in REGISTRIES:
        if any(getattr(each, "func", None) == registry.check for each in flat):
            yield f": {', '.join(registry.own)}, or one of a package"
    if said := [f"{word} {bound:,.15g}" for word, bound in bounds.items() if abs(bound) < LARGE]:
        yield " and ".join(said)


def _type(annotation: Any) -> str:  # noqa: ANN401 (any type of the schema)
    """Return the words for a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return " ".join([_type(annotation.__origin__), *_bounds(annotation.__metadata__)])
    if origin in (dict, tuple, list):
        inside = " or ".join(dict.fromkeys(_type(arg) for arg in args[origin is dict :] if arg is not Ellipsis))
        return f"{'names, each with' if origin is dict else 'list of'} {inside}"
    if origin is Literal:
        return ", ".join(args)
    if args:
        return " or ".join(word for word in dict.fromkeys(map(_type, args)) if word != "none")
    return "section" if issubclass(annotation, Section) else TYPES[annotation]


def commands_page() -> str:
    """Return the page of all commands, each with what its help says."""
    parts = [COMMANDS]
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # scripts that train hold signals back before all else
    for name, path in scripts().items():
        for depth, parser in _with_subcommands(_parser_of(path, f"matey {name}")):
            parts += [f"{'#' * (2 + depth)} {parser.prog}", "", inspect.cleandoc(parser.description or ""), ""]
            actions = [each for each in parser._actions if each.dest not in ("help", "local_rank") and not _below(each)]
            if actions:
                parts += ["| flag | what it is |", "|---|---|", *map(_row, actions), ""]
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return "\n".join(parts)


def _row(action: argparse.Action) -> str:
    flag = action.option_strings[-1] if action.option_strings else ""
    values = "" if action.nargs == 0 else action.metavar or ",".join(action.choices or [action.dest.upper()])
    meaning = ((action.help or "") + " (required)" * bool(flag and action.required)) % vars(action)
    return f"| {_code(f'{flag} {values}'.strip())} | {_cell(meaning)} |"


class _Parsing(Exception):
    """A script has made its parser and is about to use it."""


def _parser_of(path: Path, prog: str) -> argparse.ArgumentParser:
    """Return the parser that a script makes; nothing else of the script is run."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parsing(parser)

    parse, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, stop
    try:
        run_path(str(path))["main"]()
    except _Parsing as parsing:
        (parser,) = parsing.args
        parser.prog = prog
        return parser
    finally:
        argparse.ArgumentParser.parse_args = parse
    raise AssertionError(f"{path} parses no arguments")


def _with_subcommands(parser: argparse.ArgumentParser, depth: int = 0) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    yield depth, parser
    for action in parser._actions:
        helps = {each.dest: each.help for each in getattr(action, "_choices_actions", ())}
        for name, below in _below(action).items():
            below.prog, below.description = f"{parser.prog} {name}", below.description or f"{helps[name]}."
            yield from _with_subcommands(below, depth + 1)


def _below(action: argparse.Action) -> dict[str, argparse.ArgumentParser]:
    return action.choices if isinstance(action, argparse._SubParsersAction) else {}


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("*", r"\*")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, page in (("settings.md", settings_page()), ("commands.md", commands_page())):
        (FOLDER / name).write_text(page, encoding="utf-8")
