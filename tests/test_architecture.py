"""The layers of the package, the linter, and the words of the README."""

import ast
import os
import re
import subprocess
import sys

import pytest

from matey.checkpoints import run_files
from tests.support.paths import BIN, ROOT
from tests.support.programs import cases_of, start
from tests.support.sources import sources


def names_used(source):
    """The full name of everything that source text imports, and of what it reaches through that."""
    tree, known = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                first = alias.name.split(".")[0]
                known |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = dotted(node)
            if first in known:
                yield ".".join([known[first], *rest])


def dotted(node):
    """The names of ``a.b.c``; none are known before what is no name, such as a call."""
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else None]


def of_torch_distributed(source):
    """What source text uses of ``torch.distributed``; import-linter sees of other packages no more than that they are used."""
    return [name for name in dict.fromkeys(names_used(source)) if f"{name}.".startswith("torch.distributed.")]


def test_every_package_uses_those_below_it_alone():
    command = [BIN / "lint-imports", "--no-cache"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0 and "0 broken" in result.stdout, result.stdout


def test_parallel_alone_uses_torch_distributed():
    texts = {path: path.read_text() for path in sorted((ROOT / "matey").rglob("*.py"))}
    told = re.compile(r"distributed|from\s*\.")  # where there is neither, there is nothing to find
    named = {path: text for path, text in texts.items() if told.search(text)}
    users = {path.relative_to(ROOT / "matey").parts[0] for path, text in named.items() if of_torch_distributed(text)}
    assert users == {"parallel"}


def test_text_names_modules_of_other_rooms_for_the_choices_of_the_run_yaml_alone():
    """What is imported by its name, as registries do, import-linter does not see."""
    place, upward = re.compile(r"[\"']matey\.(\w+)[\w.]*:"), set()
    for path in (ROOT / "matey").rglob("*.py"):
        room, *_ = path.relative_to(ROOT / "matey").with_suffix("").parts
        upward |= {path.name for other in place.findall(path.read_text()) if other != room}
    assert upward == {"schema.py"}


def test_no_module_of_tests_is_imported_by_another_nor_from_another_folder():
    tests = re.compile(r"^\s*(?:from|import) .*\b(?:conftest|test_\w+)", re.MULTILINE)
    folders = re.compile(r"^\s*(?:from|import) tests\.(\w+)\.", re.MULTILINE)
    found = {path.relative_to(ROOT / "tests"): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    wrong = {path for path, text in found.items() if tests.search(text)}
    wrong |= {path for path, text in found.items() if {*folders.findall(text)} - {"support", path.parts[0]}}
    assert len(found) > 100 and not wrong, "helpers belong into tests/support"


def test_names_of_a_runs_files_are_spelt_in_one_module_alone():
    names = {name for name in vars(run_files).values() if isinstance(name, str) and re.fullmatch(r"\w+\.\w+", name)}
    assert {"config.yaml", "metrics.jsonl", "report.html"} <= names
    spelt = {
        (path.relative_to(ROOT).as_posix(), node.value)
        for path, nodes in sources()
        for node in nodes.get(ast.Constant, ())
        if isinstance(node.value, str) and node.value.split("/")[-1] in names
    }
    assert {path for path, _ in spelt} == {"matey/checkpoints/run_files.py"}, spelt


@pytest.fixture(scope="module")
def imported():
    """What a new interpreter says that imports all of ours."""
    return start([sys.executable, "-m", "tests.support.import_effects"], anew=True)


def test_importing_a_module_of_ours_changes_nothing_outside_it(imported):
    ((num_modules, changed),) = cases_of(imported, "effects")
    assert num_modules > 150 and changed == {}


def test_importing_matey_needs_neither_deepspeed_nor_mpi(imported):
    (modules,) = cases_of(imported, "modules")
    assert "matey.train.run" in modules and {"deepspeed", "mpi4py", "matplotlib"}.isdisjoint(modules)


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
