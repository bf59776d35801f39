"""The files on docs/extending.md, installed as a package of someone else, pass their tests; no kind of thing is missing."""

import re
import sys
import tomllib

import pytest

from tests.support.paths import ROOT
from tests.support.programs import start

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r'```(?:python|toml) title="([\w.]+)"\n(.*?)```', re.S)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of the page's package, with the metadata that pip would leave for it."""
    folder, blocks = tmp_path_factory.mktemp("site-packages"), BLOCK.findall(PAGE)
    for name, text in blocks:
        if name.endswith(".py"):
            assert not (folder / name).exists(), f"{name} is on the page twice"
            (folder / name).write_text(text)
    project = tomllib.loads("".join(text for name, text in blocks if name == "pyproject.toml"))["project"]
    lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"]
    metadata = folder / "my_physics-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("".join(lines))
    groups = {
        group: [f"{name} = {value}" for name, value in points.items()]
        for group, points in project["entry-points"].items()
    }
    (metadata / "entry_points.txt").write_text(
        "\n".join(line for group in groups for line in (f"[{group}]", *groups[group]))
    )
    return folder


def test_every_file_on_the_page_passes_its_test_as_an_installed_package(package):
    tests = sorted(path.name for path in package.glob("test_*.py"))
    (package / "run.py").write_text("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))\n")
    result = start([sys.executable, package / "run.py", "-q", "-p", "no:cacheprovider", "--rootdir", package, package])
    assert result.returncode == 0, result.stdout + result.stderr
    parts = re.findall(r"^## (.+)$", PAGE, re.M)
    assert len(tests) == len(parts), f"{len(parts)} parts of the page have {tests}"


def test_every_kind_of_thing_that_has_a_registry_is_in_the_table():
    sources = "".join(path.read_text() for path in (ROOT / "matey").rglob("*.py"))
    groups = re.findall(r'= Registry\(\s*"[\w -]+",\s*"(matey\.\w+)"', sources)
    assert "matey.readers" in groups
    for group in groups:
        assert f"| `{group}` |" in PAGE and f'[project.entry-points."{group}"]' in PAGE
