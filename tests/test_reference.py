"""The reference names every key and every command, and the page of troubleshooting sentences that are really said."""

import ast
import re
import sys
from functools import cache

import pytest

from matey.checkpoints import run_files
from matey.commands.subcommands import scripts
from matey.config.description import DataDescription
from matey.config.loading import section_at
from matey.config.schema import RunConfig
from tests.support.paths import ROOT
from tests.support.sources import sources


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    return reference


def test_the_page_of_settings_has_a_row_for_every_key(reference):
    page = reference.settings_page()
    sections = [section_at([name]) for name in RunConfig.model_fields] + [section_at(["data", "sets"]), DataDescription]
    assert len(sections) > 8
    for section in sections:
        for name, field in section.model_fields.items():
            assert re.search(rf"^\| `{name}` \| .+ \| .+ \| .*\|$", page, re.M), name
            assert " ".join((field.description or "").split()) in page, name
    assert "| `refine` | number from 0 to 1e9 | `0.2` | the rule's threshold gamma" in page
    assert "| `learning_rate` | number above 0, at most 10 | `0.001` | peak learning rate |" in page
    assert "| `scheme` | `vit`, `svit`, `avit` | `vit` |" in page


def test_the_page_of_commands_has_the_flags_of_every_script_and_subcommand(reference):
    page = reference.commands_page()
    assert all(f"\n## matey {name}\n" in page for name in scripts())
    assert "usage: matey reproduce data_efficiency" in page and "--sizes" in page
    assert all(f"usage: matey {name} " in page for name in scripts())


@cache
def said():
    """Every text of the package, with the names of a run's files, and ... for what else is filled in."""
    texts = []
    for path, nodes in sources():
        if path.is_relative_to(ROOT / "matey") or path.parent == ROOT / "launch":
            texts += ["".join(map(text_of, node.values)) for node in nodes.get(ast.JoinedStr, ())]
            texts += [node.value for node in nodes.get(ast.Constant, ()) if isinstance(node.value, str)]
    return texts


def text_of(part):
    if isinstance(part, ast.Constant):
        return part.value
    return vars(run_files).get(part.value.id, "...") if isinstance(part.value, ast.Name) else "..."


QUOTED = re.findall(r"^\*\*`(.+)`\*\*$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)


@pytest.mark.parametrize("sentence", QUOTED)
def test_a_sentence_of_the_page_of_troubleshooting_is_one_that_is_said(sentence):
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in sentence.split("...")), re.S)
    assert any(pattern.search(text) for text in said())
