"""What a newcomer meets first: the Python of the README, its links, and the drawing of the layers."""

import re
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import start

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "ds_configs/README.md",
    "models/matey-micro/README.md",
)


def test_the_python_of_the_readme_runs_and_gives_the_error_that_it_names(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "models").symlink_to(ROOT / "models")
    result = start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    assert result.returncode == 0, result.stderr
    stated = float(re.search(r"# (0\.\d+) of the water's height", code)[1])
    assert float(re.search(r"0\.\d+", result.stdout)[0]) == pytest.approx(stated, rel=0.1)


@pytest.mark.parametrize("page", [*PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)\s#]+)", (ROOT / page).read_text())
    missing = [
        target for target in targets if ":" not in target and not ((ROOT / page).parent / target).resolve().exists()
    ]
    assert missing == []


def test_the_drawing_of_the_layers_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.partition("## The layers")[2].partition("\n## ")[0]
    packages = [path.parent.name for path in (ROOT / "matey").glob("*/__init__.py")]
    assert len(packages) > 5
    assert [name for name in packages if not re.search(rf"\b{name}\b", drawing)] == []


def test_the_table_of_where_to_add_what_names_files_and_names_that_there_are():
    rows = re.findall(r"^\| (?!new|---)(.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    source = "\n".join(path.read_text() for path in (ROOT / "matey").rglob("*.py"))
    missing = []
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        folders = [ROOT, *(ROOT / name for name in names if name.endswith("/"))]
        folders += [(ROOT / name).parent for name in names if name.endswith(".py") and "/" in name]
        for name in names:
            if name.endswith((".py", "/")):
                is_there = any((folder / name).exists() for folder in folders)
            else:
                is_there = re.search(rf"\b{re.escape(name.split('.')[-1])}\b", source)
            missing += [] if is_there else [name]
    assert missing == []
