"""What mkdocs does beyond mkdocs.yml: pages of the packages, what lies outside of docs/, links between all.

Links are written so that they work where the files lie, in an editor or on a web page of the repository. Here they are turned
to pages of the site: ``../matey/fields.py#FieldBatch`` to that class in the API, ``../CHANGELOG.md`` to the page made of it. A
file that is on no page leaves its bare name. A link to a file that is not there ends a strict build.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebooks import notebook_page

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = dict.fromkeys(
    re.findall(r"\(\.\./examples/(\w+)\.ipynb\)", (ROOT / "docs/tutorials.md").read_text(encoding="utf-8"))
)
"""Names of the notebooks that are pages, in the order of the page that lists them."""

OUTSIDE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "ds_configs/README.md": "ds_configs.md",
    "models/matey-micro/README.md": "matey-micro.md",
    **{f"examples/{name}.ipynb": f"tutorials/{name}.md" for name in TUTORIALS},
}
"""Pages of the site by the files that they are made of."""

TITLES = {
    "contributing.md": "Contributing",
    "changelog.md": "Changes",
    "security.md": "Security",
    "ds_configs.md": "DeepSpeed configurations",
    "matey-micro.md": "The model in the box",
}
LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.matey")


def packages() -> dict[str, str]:
    """Return the public packages and modules of matey/, and the first sentence of each."""
    found = {}
    for path in sorted((ROOT / "matey").iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith("_") or source.suffix != ".py" or not source.is_file():
            continue
        found[path.stem] = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that are made here to the navigation."""
    more = [{title: page} for page, title in TITLES.items()]
    api = ["api/index.md", *({f"matey.{name}": f"api/{name}.md"} for name in packages())]
    reference = [{"Settings": "reference/settings.md"}, {"Commands": "reference/commands.md"}]
    tutorials = {"Tutorials": ["tutorials.md", *(f"tutorials/{name}.md" for name in TUTORIALS)]}
    nav = [tutorials if entry == {"Tutorials": "tutorials.md"} else entry for entry in config.nav]
    config.nav = [*nav, {"Reference": reference}, {"Project": more}, {"API": api}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages of the API, and take in those that lie outside of docs/."""
    pages = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in OUTSIDE.items()}
    pages |= {page: notebook_page(pages[page]) for path, page in OUTSIDE.items() if path.endswith(".ipynb")}
    rows = [f"| [matey.{name}]({name}.md) | {about} |" for name, about in packages().items()]
    pages["api/index.md"] = "\n".join(["# API", "", "| package | what it is for |", "|---|---|", *rows, ""])
    for name in packages():
        pages[f"api/{name}.md"] = f"# matey.{name}\n\n::: matey.{name}\n"
    for page, content in pages.items():
        files.append(File.generated(config, page, content=content))
    return files


def page_of(path: str, anchor: str) -> str:
    """Return the page of the site, and the place in it, that stands for a file and a place in it."""
    if path == "matey":
        return "api/index.md"
    if path.startswith("matey/"):
        module = path.removesuffix(".py").removesuffix("/__init__").split("/")
        place = ".".join([*module, *filter(None, [anchor.removeprefix("#")])])
        return f"api/{module[1]}.md" + (f"#{place}" if place.count(".") > 1 else "")
    return OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "") + anchor


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/, and those of pages that lie outside of it."""
    own = page.file.src_uri
    if own.startswith("api/"):
        return markdown
    outside = {page: path for path, page in OUTSIDE.items()}
    folder = (ROOT / outside.get(own, f"docs/{own}")).parent

    def turned(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = Path(os.path.normpath(folder / target))
        if not path.exists() or not path.is_relative_to(ROOT):
            log.warning("%s links to %s, which is not there", outside.get(own, f"docs/{own}"), target)
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        to = page_of(name, anchor)
        if files.get_file_from_path(to.partition("#")[0]) is None:
            return text if name in text else f"{text} (`{name}`)"
        return f"{mark}[{text}]({os.path.relpath(to, os.path.dirname(own) or '.')})"

    return LINK.sub(turned, markdown)
