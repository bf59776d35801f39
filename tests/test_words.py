"""Docstrings, help texts and names of tests in plain English, as far as a small check can hold it."""

import ast
import re
from itertools import pairwise

from tests.support.paths import ROOT
from tests.support.sources import sources

SECTIONS = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
# An entry says what a thing is. One that begins with these needs the name before it to become a sentence.
FRAGMENTS = frozenset(
    "of in to by for from with without at as on per along over after before between inside into under within through beside "
    "what which that where when how who whose whom its their those".split()
)
# So does the summary of a class or a function; a module may be headed as a question: "What a run costs".
QUESTIONS = re.compile(r"(what|which|how|where|who|whose|when)\b|return what (reads|tells|sets)\b", re.IGNORECASE)
LONGEST_NAME = 80


def entries(docstring):
    """The name and the first line of each entry of a docstring's sections; what is returned has no name."""
    section, begins, found = None, False, []
    for line in docstring.splitlines():
        depth = len(line) - len(line.lstrip())
        if heading := SECTIONS.fullmatch(line):
            section, begins = heading[1], True
        elif line and depth == 0:
            section = None
        elif section and line:
            named = section not in ("Returns", "Yields")
            if depth == 4 and (named or begins):
                name, _, text = line.strip().partition(": ") if named else ("", "", line.strip())
                found.append((name, text))
            begins = False
    return found


def is_fragment(text):
    """Whether an entry's text begins with a preposition or a relative word, a shape such as ``(b, f)`` before it left out."""
    words = re.sub(r"^(``[^`]*``,? ?)+", "", text).split()
    return bool(words) and words[0].strip(",;:.").lower() in FRAGMENTS


def documented(nodes, kinds=(ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
    return [node for kind in kinds for node in nodes.get(kind, ()) if ast.get_docstring(node)]


def test_entries_of_docstrings_say_what_a_thing_is():
    wrong, num_entries = [], 0
    for path, nodes in sources():
        for node in documented(nodes):
            for name, text in entries(ast.get_docstring(node)):
                num_entries += 1
                if is_fragment(text):
                    wrong.append(f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'top')}: {name}: {text}")
    assert wrong == [] and num_entries > 500


def test_summaries_of_classes_and_functions_are_no_questions():
    wrong = []
    for path, nodes in sources():
        for node in documented(nodes, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if QUESTIONS.match(ast.get_docstring(node)):
                wrong.append(f"{path.relative_to(ROOT)}, {node.name}: {ast.get_docstring(node).splitlines()[0]}")
    assert wrong == []


def explained_values(nodes):
    """The texts below assignments, which say what a constant, an alias or a type is."""
    for body in (node.body for kind in (ast.Module, ast.ClassDef) for node in nodes.get(kind, ())):
        for above, node in pairwise(body):
            is_below = isinstance(above, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr)
            if is_below and isinstance(node.value, ast.Constant):
                yield node.value.value


def test_what_stands_below_a_constant_says_what_it_is():
    texts = [(path, text) for path, nodes in sources() for text in explained_values(nodes)]
    wrong = [f"{path.relative_to(ROOT)}: {text}" for path, text in texts if is_fragment(text)]
    assert wrong == [] and len(texts) > 100


def explained(nodes):
    """The texts of ``help`` and ``description`` that calls are given, without what is filled in."""
    for call in nodes.get(ast.Call, ()):
        for keyword in (keyword for keyword in call.keywords if keyword.arg in ("help", "description")):
            parts = getattr(keyword.value, "values", [keyword.value])
            if isinstance(parts[0], ast.Constant) and isinstance(parts[0].value, str):
                yield parts[0].value


def test_help_texts_say_what_a_flag_or_a_key_is():
    texts = [(path, text) for path, nodes in sources() for text in explained(nodes)]
    wrong = [f"{path.relative_to(ROOT)}: {text}" for path, text in texts if is_fragment(text)]
    assert wrong == [] and len(texts) > 100


def test_names_of_tests_are_short_enough_to_read():
    long = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        long += [f"{path.relative_to(ROOT)}: {name}" for name in names if len(name) > LONGEST_NAME]
    assert long == []
