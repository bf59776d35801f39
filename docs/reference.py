"""Writes docs/reference/ from the code: every key of the run YAML and of a description, every flag of a command.

python docs/reference.py writes the pages; `make docs` does so, too, and a test compares them with the code.
"""

from __future__ import annotations

import argparse
import inspect
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

from matey.commands.subcommands import scripts
from matey.config.explain import about, keys, sections

FOLDER = Path(__file__).resolve().parent / "reference"
SETTINGS = """# Every key of the run YAML

`matey configs explain tokens.refine` prints the same. `--set tokens.refine=0.1` overrides a key for one run. `MateyConfig` has
the keys of the network under the same names. What DeepSpeed does is set in [its own JSON](../../ds_configs/README.md).
This page is made from the code by `python docs/reference.py`.
"""
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
