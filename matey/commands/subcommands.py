"""The command ``matey``: each subcommand is a script of launch/ or tools/, run as if it were called directly.

matey pretrain ...      launch/pretrain.py ...          deepspeed --module matey pretrain ...
matey inspect ...       tools/inspect_data.py ...       srun python -m matey pretrain ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from runpy import run_path

import matey
from matey.config.loading import ROOT
from matey.mistakes import nearest_name

SHORT = {"convert_checkpoint": "convert", "inspect_data": "inspect"}
"""Names of subcommands that differ from their scripts' names."""


COMPLETION = r"""_matey() {{
  local words="{}"
  (( COMP_CWORD > 1 )) && words=$(matey "${{COMP_WORDS[1]}}" --help 2>/dev/null | grep -oE -e '--[a-z][a-z_-]+' | sort -u)
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _matey matey"""
"""Completes names of subcommands, and a subcommand's flags as its help names them, in bash; all else are names of files."""


def main() -> int:
    """Run a subcommand and return its exit code; 0 if help was asked for, 2 if there is no such subcommand."""
    # DeepSpeed's launcher puts its own flag first.
    words = sorted(sys.argv[1:], key=lambda word: word.startswith("--local_rank="))
    if words[:1] in (["-h"], ["--help"]):
        print(overview())
        return 0
    if words[:1] == ["--completion"]:
        print(COMPLETION.format(" ".join(scripts())))
        return 0
    if words[:1] == ["--version"]:
        print(f"matey {matey.__version__}")
        return 0
    known, name = scripts(), words[0].replace("_", "-") if words else ""
    if name not in known:
        print(f"error: There is no command {name!r}.{nearest_name(name, known)} See matey --help.", file=sys.stderr)
        return 2
    sys.argv = [f"matey {name}", *words[1:]]
    code: int = run_path(str(known[name]))["main"]()
    return code


def scripts() -> dict[str, Path]:
    """Return the scripts by name of subcommand, those of launch/ first."""
    found = [path for folder in ("launch", "tools") for path in sorted((ROOT / folder).glob("*.py"))]
    return {SHORT.get(path.stem, path.stem.replace("_", "-")): path for path in found}


def overview() -> str:
    """Return the list of subcommands, each with the first line of its script, without the command that follows a colon."""
    known = scripts()
    width = max(map(len, known))
    firsts = {
        name: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("r").strip('".')
        for name, path in known.items()
    }
    return "\n".join(
        [
            "usage: matey COMMAND ...\n",
            (matey.__doc__ or "").strip() + "\n",
            *(f"  {name:{width}}  {first.partition(': `')[0]}" for name, first in firsts.items()),
            '\nmatey COMMAND --help says more. In bash, eval "$(matey --completion)" completes commands and flags by tab.',
            "On several processes:",
            "  torchrun --nproc_per_node 2 -m matey pretrain ...     deepspeed --num_gpus 2 --module matey pretrain ...",
            "  mpirun -np 2 python -m matey pretrain ...             srun python -m matey pretrain ...",
        ]
    )
