"""The command ``matey``: each subcommand is a script of launch/ or tools/, run as if it were called directly.

matey pretrain ...      launch/pretrain.py ...          deepspeed --module matey pretrain ...
matey inspect ...       tools/inspect_data.py ...       srun python -m matey pretrain ...
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import matey
from matey.config.files import ROOT
from matey.mistakes import nearest_name

SHORT = {"convert_checkpoint": "convert", "inspect_data": "inspect"}
"""Names of subcommands that differ from their scripts' names."""


def main() -> int:
    """Run a subcommand and return its exit code; 0 if help was asked for, 2 if there is no such subcommand."""
    # DeepSpeed's launcher puts its own flag first.
    words = sorted(sys.argv[1:], key=lambda word: word.startswith("--local_rank="))
    if words[:1] in (["-h"], ["--help"]):
        print(overview())
        return 0
    if words[:1] == ["--version"]:
        print(f"matey {matey.__version__}")
        return 0
    known = scripts()
    if not words or words[0].replace("_", "-") not in known:
        came = f"no command {words[0]!r}.{nearest_name(words[0], known)}" if words else "a command to follow."
        expected = "There is" if words else "Expected"
        print(f"error: {expected} {came} Known are {', '.join(known)}; see matey --help.", file=sys.stderr)
        return 2
    name = words[0].replace("_", "-")
    sys.argv = [f"matey {name}", *words[1:]]
    return script_main(known[name])()


def scripts() -> dict[str, Path]:
    """Return the scripts by name of subcommand, those of launch/ first."""
    found = [path for folder in ("launch", "tools") for path in sorted((ROOT / folder).glob("*.py"))]
    return {SHORT.get(path.stem, path.stem.replace("_", "-")): path for path in found}


def script_main(path: Path) -> Callable[[], int]:
    """Return the function that runs a script from the command line."""
    spec = spec_from_file_location(f"matey_script_{path.stem}", path)
    assert spec is not None and spec.loader is not None, f"{path} is a Python file"
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    found: Callable[[], int] = script.main
    return found


def overview() -> str:
    """Return the list of subcommands, each with the first sentence of its script's docstring."""
    known = scripts()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {_purpose(path)}" for name, path in known.items()]
    return "\n".join(
        [
            "usage: matey COMMAND ...\n",
            (matey.__doc__ or "").strip() + "\n",
            *lines,
            "\nmatey COMMAND --help says more. On several processes:",
            "  torchrun --nproc_per_node 2 -m matey pretrain ...     deepspeed --num_gpus 2 --module matey pretrain ...",
            "  mpirun -np 2 python -m matey pretrain ...             srun python -m matey pretrain ...",
        ]
    )


def _purpose(path: Path) -> str:
    """Return the first line of a script's docstring, without the command that follows a colon."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].partition(": `")[0].removesuffix(".")
