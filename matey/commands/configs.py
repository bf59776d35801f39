"""Lists, shows and copies the configurations that come with MATEY."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from matey.commands.flags import parser_of
from matey.config import flags
from matey.config.files import KINDS, ROOT, configurations, hint_of_file
from matey.mistakes import Mistake, writing
from matey.process.start import entry_point


@entry_point
def configs() -> int:
    """List, show or copy the configurations that come with MATEY.

        python tools/configs.py list
        python tools/configs.py show demo
        python tools/configs.py copy demo [--out mine.yaml]

    Where a command takes the YAML of a run or the JSON of DeepSpeed, a name of this list will do.
    """
    parser = parser_of(configs)
    what = parser.add_subparsers(required=True, dest="what", metavar="list|show|copy")
    what.add_parser("list", help="names, and the first comment of each")
    show, copy = what.add_parser("show", help="print one"), what.add_parser("copy", help="copy one, to change it")
    for command in (show, copy):
        command.add_argument("name", metavar="NAME", help="name in the list, such as demo or zero1")
    copy.add_argument("--out", type=flags.path, metavar="FILE", help="file to make; by default of the same name, here")
    args = parser.parse_args()
    if args.what == "list":
        print(overview())
        return 0
    known = {name: file for folder in KINDS for name, file in configurations(folder).items()}
    source = known.get(Path(args.name).stem)
    if source is None:
        raise Mistake(f"There is no configuration {args.name!r}.{hint_of_file(args.name)} See `matey configs list`.")
    if args.what == "show":
        print(source.read_text(encoding="utf-8"), end="")
        return 0
    out = args.out or Path(source.name)
    with writing(out), out.open("x", encoding="utf-8") as file:
        file.write(source.read_text(encoding="utf-8"))
    print(f"Wrote {out}.")
    return 0


def overview() -> str:
    """Return the names of both kinds of configurations, each with its first sentence."""
    lines = []
    for folder, what in zip(KINDS, ("Runs, for --config:", "Engines, for --deepspeed_config:"), strict=True):
        table = ROOT / folder / "README.md"
        text = table.read_text("utf-8") if table.is_file() else ""
        about = dict(re.findall(r"^\| `(.+?)` \| (.+?)(?:[;(].*)? \|$", text, re.M))
        lines.append(what)
        for name, file in configurations(folder).items():
            lines.append(f"  {name:26}{about.get(file.name) or first_sentence(file)}".rstrip())
    return "\n".join(lines)


def first_sentence(file: Path) -> str:
    """Return the first sentence of a YAML's head comment, or the text before its first colon."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    return re.split(r"[:;] |[.:]$|\. ", " ".join(line.removeprefix("# ") for line in lines))[0]
