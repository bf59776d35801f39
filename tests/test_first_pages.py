"""What pages say and name is there: Python that runs, links, keys, commands, registries, sentences."""

import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import xarray
import yaml

from matey.checkpoints import run_files
from matey.commands.subcommands import scripts
from matey.config import ConfigError, DataDescription, parse_config
from matey.config.explain import explain, keys, sections
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start

PAGES = [
    *ROOT.glob("*.md"),
    ROOT / "ds_configs/README.md",
    ROOT / "models/matey-micro/README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/reference/*.md"),
]
SOURCE = "\n".join(path.read_text() for path in (ROOT / "matey").rglob("*.py"))


def blocks(language, *pages):
    """The code of pages in a language, block by block."""
    return [
        code
        for page in pages
        for code in re.findall(rf"```{language}.*?\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    ]


def test_the_python_of_the_readme_runs_and_gives_the_error_that_it_names(tmp_path):
    (code,), (more,) = (blocks("python", page) for page in ("README.md", "docs/forecasting.md"))
    code += more.replace("data/new", "data/one").replace("steps=100", "steps=3")
    (tmp_path / "models").symlink_to(ROOT / "models")
    result = start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    assert result.returncode == 0, result.stderr
    stated = float(re.search(r"# (0\.\d+) of the water's height", code)[1])
    assert float(re.search(r"0\.\d+", result.stdout)[0]) == pytest.approx(stated, rel=0.1)


def test_the_python_of_the_page_on_your_own_data_runs_on_data_like_it():
    shape, axes = (3, 8, 16, 16), ("sample", "time", "latitude", "longitude")
    fields = {name: (axes, np.random.default_rng(0).normal(size=shape)) for name in ("t2m", "u10", "v10", "z")}
    along = {"time": np.arange(8.0), "latitude": np.arange(16.0), "longitude": np.arange(16.0)}
    weather = xarray.Dataset({**fields, "co2": ("sample", np.ones(3))}, along)
    field, numbers = np.zeros(shape), np.ones(3)
    names = dict(c=field, u=numbers, s=field, d=field[:, 0], dy=0.1, dx=0.1, dt=0.5, dataset=weather)
    found = []
    for code in blocks("python", "docs/own_data.md"):
        exec(code, names)
        found.append((names["data"].num_trajectories, names["data"].fields))
    assert found == [(3, ("tracer",)), (3, ("t2m", "u10", "v10"))]


def test_the_yaml_of_pages_is_what_the_schema_takes():
    ends = {"y": "wall", "x": "periodic"}
    ours = {"system": "a", "axes": ["time", "y", "x"], "fields": {"a": "a"}, "spacing": {"y": 1, "x": 1}}
    run = {"data": {"sets": [{"path": "a"}]}, "train": {"steps": 1}, "output": {"dir": "a"}}
    found = blocks("yaml", *(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md")))
    assert len(found) > 5
    for text in found:
        tree = yaml.safe_load(text)
        if tree.keys() <= DataDescription.model_fields.keys():
            files = {} if "axes" in tree else {"axes": ["time", "y", "x"]}
            DataDescription.model_validate({**ours, "time_step": 1, "boundary": ends, "files": "*"} | files | tree)
        else:
            parse_config({key: run.get(key, {}) | tree.get(key, {}) for key in run.keys() | tree.keys()}, "a page")


@pytest.mark.slow
@pytest.mark.processes
def test_the_commands_of_the_readme_make_its_picture(tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    lines = re.findall(r"^    (matey (?:simulate|show-forecast) .*)$", (ROOT / "README.md").read_text(), re.M)
    assert len(lines) == 2
    for line in lines:
        env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
        result = subprocess.run([sys.executable, "-m", *line.split()], cwd=tmp_path, env=env, capture_output=True)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.processes
def test_the_recipe_for_your_own_data_leads_to_a_forecast_and_a_film(tmp_path):
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/own_data.md"))
    lines = page.splitlines()[4:10]
    assert "\n".join(lines) in readme
    (tmp_path / "data/mine").mkdir(parents=True)
    x, time = np.arange(32.0), np.arange(12.0)
    for number in range(10):
        wave = 280 + np.sin(2 * np.pi * (x - time[:, None, None] + number) / 32) * np.cos(x / 5)[:, None]
        coordinates = {
            "time": ("time", time, {"units": "days since 1850-02-25", "calendar": "noleap"}),
            "lat": x,
            "lon": x,
        }
        data = xarray.Dataset({"sst": (("time", "lat", "lon"), wave, {"units": "K"})}, coordinates)
        data.to_netcdf(tmp_path / f"data/mine/run_{number:02}.nc")
    description, env = tmp_path / "data/mine/matey.yaml", {**clean_environment(), "PYTHONPATH": str(ROOT)}
    for line in map(str.strip, lines):
        if line.startswith("#"):
            answered = description.read_text().replace("x: TODO", "x: periodic").replace("y: TODO", "y: wall")
            description.write_text(answered.replace("system: TODO", "system: ocean"))
            continue
        few = ["--set", "train.steps=3"] if "finetune" in line else []
        command = [sys.executable, "-m", *line.split(), *few]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    with xarray.open_dataset(tmp_path / "forecast.nc") as forecast:
        assert forecast.sst.shape == (10, 20, 32, 32) and forecast.time.dt.calendar == "noleap"
    assert (tmp_path / "forecast.gif").stat().st_size > 1000 and (tmp_path / "runs/mine/report.html").exists()


def test_every_link_leads_to_a_file():
    targets = {(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s#]+)", page.read_text())}
    assert len(targets) > 50
    assert [(p, to) for p, to in targets if ":" not in to and not (p.parent / to).resolve().exists()] == []


def test_the_drawing_of_the_layers_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.partition("## The layers")[2].partition("\n## ")[0]
    packages = [path.parent.name for path in (ROOT / "matey").glob("*/__init__.py")]
    assert len(packages) > 5
    assert [name for name in packages if not re.search(rf"\b{name}\b", drawing)] == []


def test_the_table_of_where_to_add_what_names_files_and_names_that_there_are():
    rows = re.findall(r"^\| (?!new|---)(.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    missing = []
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        folders = [ROOT, *(ROOT / name for name in names if name.endswith("/"))]
        folders += [(ROOT / name).parent for name in names if name.endswith(".py") and "/" in name]
        for name in names:
            if name.endswith((".py", "/")):
                is_there = any((folder / name).exists() for folder in folders)
            else:
                is_there = re.search(rf"\b{re.escape(name.split('.')[-1])}\b", SOURCE)
            missing += [] if is_there else [name]
    assert missing == []


CODE = "\n".join(blocks("python", "docs/python.md"))
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
    groups = re.findall(r'= Registry\(\s*"[\w -]+",\s*"(matey\.\w+)"', SOURCE)
    assert "matey.readers" in groups
    assert all(f"| `{group}` |" in PAGE for group in groups)
    assert set(PROJECT["entry-points"]) == set(groups)


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
        assert (ROOT / "docs/reference" / f"{name}.md").read_text() == page, "python docs/reference.py writes them"


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
    with pytest.raises(ConfigError, match="no key 'refine'. Did you mean 'tokens.refine'?"):
        explain("refine")


def test_sentences_of_the_page_of_troubleshooting_are_ones_that_are_said():
    said = re.sub(r"\"\s*f?\"", "", SOURCE)  # a text goes on in the next line
    said = re.sub(r"\{(\w+)\}", lambda name: str(vars(run_files).get(name[1], "...")), said)
    quoted = re.findall(r"^\*\*`(.+)`\*\*$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    patterns = [".*".join(re.escape(part.strip()) for part in sentence.split("...")) for sentence in quoted]
    assert len(quoted) > 10 and [each for each in patterns if not re.search(each, said)] == []
