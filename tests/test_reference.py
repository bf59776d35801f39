"""The reference names every key and every command, and the page of troubleshooting sentences that are really said."""

import ast
import re
import sys
from functools import cache

import pytest

from matey.checkpoints import run_files
from matey.commands.subcommands import scripts
from matey.config import ConfigError
from matey.config.explain import explain, keys, sections
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


def test_the_pages_of_the_reference_are_those_that_the_code_makes(reference):
    for name, page in (("settings", reference.settings_page()), ("commands", reference.commands_page())):
        assert (ROOT / "reference" / f"{name}.md").read_text() == page, "python docs/reference.py writes them"


def test_every_key_has_a_meaning_and_every_command_its_flags(reference):
    found = sections()
    assert len(found) > 12
    assert all(key.meaning and key.type for path, section in found.items() for key in keys(path, section))
    page = reference.commands_page()
    assert all(f"\n## matey {name}\n" in page for name in scripts())
    assert "\n### matey reproduce data_efficiency\n" in page and "| `--sizes N,N` |" in page


def test_a_key_is_explained_by_its_type_default_unit_and_meaning():
    said = explain("parallel.timeout")
    assert all(words in said for words in ("number at least 1", "default: 1800", "unit: s", "communication that hangs"))
    assert "default: [[1, 1, 32, 32], [1, 1, 8, 8]]; unit: frames, then cells" in explain("tokens")
    assert "type: number above 0 and at most 10; default: 0.001" in explain("train")
    assert "\ndata.sets " in explain("")
    with pytest.raises(ConfigError, match="no key 'refine'. Did you mean 'tokens.refine'?"):
        explain("refine")


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
