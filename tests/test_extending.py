"""The package of examples/my_physics, installed, passes its tests; no kind of thing is missing."""

import re
import shutil
import sys
import tomllib

import pytest

from tests.support.paths import ROOT
from tests.support.programs import start

PACKAGE, PAGE = ROOT / "examples" / "my_physics", (ROOT / "docs" / "extending.md").read_text()
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A copy of the package, with the metadata that pip would leave for it."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(PACKAGE, folder, dirs_exist_ok=True)
    metadata = folder / "my_physics-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n"
    )
    lines = []
    for group, points in PROJECT["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_every_thing_in_the_package_passes_its_test_once_installed(installed):
    (installed / "run.py").write_text("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))\n")
    tests = installed / "tests"
    result = start([sys.executable, installed / "run.py", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests])
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(list(tests.glob("test_*.py"))) == sum(map(len, PROJECT["entry-points"].values()))


def test_every_kind_of_thing_that_has_a_registry_is_in_the_table_and_in_the_package():
    sources = "".join(path.read_text() for path in (ROOT / "matey").rglob("*.py"))
    groups = re.findall(r'= Registry\(\s*"[\w -]+",\s*"(matey\.\w+)"', sources)
    assert "matey.readers" in groups
    assert all(f"| `{group}` |" in PAGE for group in groups)
    assert set(PROJECT["entry-points"]) == set(groups)
