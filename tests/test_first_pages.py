"""What a newcomer meets first: the Python of the README, its links, and the drawing of the layers."""

import re
import shutil
import sys
import tomllib

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
    "reference/settings.md",
    "reference/commands.md",
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


CODE = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL))
PROBE = "    optimizer.step()\n"


@pytest.mark.slow
def test_a_loop_of_ones_own_and_hugging_faces_trainer_train_as_the_page_says(tmp_path):
    code = CODE.replace(PROBE, f"{PROBE}    print('loss', loss.item())\n", 1) + "print(type(model).__name__)\n"
    result = start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    assert result.returncode == 0, result.stderr
    losses = [float(value) for value in re.findall(r"^loss (\S+)$", result.stdout, re.M)]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.6 * sum(losses[:5])
    before, after = re.search(r"validation (\S+) -> (\S+)", result.stdout).groups()
    assert float(after) < float(before)
    assert result.stdout.endswith("MateyModel\n")


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
