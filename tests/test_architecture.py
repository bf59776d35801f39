"""The layers of the package, the linter, and the words of the README."""

import ast
import subprocess
import sys

import pytest

import matey
from tests.conftest import ROOT

LAYERS = [
    {"config", "ending", "fields", "held_signals", "launchers", "leave_signals", "likely_place"},
    {"tokens"},
    {"model", "data", "simulate"},
    {"train", "evaluate", "parallel", "checkpoints", "scaling"},
    {"commands"},
]
DOWN = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
STRANGERS = [{"model", "data"}]
OF_PARALLEL = ("torch.distributed", "deepspeed")  # which no other package touches
OF_TOOLS = ("simulate",)  # which nothing but tools/, what they do, and tests/ imports


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


def package_of(name):
    """The package of ours that a full name lies in, None if there is none."""
    if name.split(".")[0] != "matey" or name == "matey":
        return None
    first = name.split(".")[1]
    first = matey._HOME[first].split(".")[1] if first in matey._HOME else first
    assert first in DOWN or hasattr(matey, first), name
    return first if first in DOWN else None


def faults(source, package):
    """The names that source text of a package may not use: those of what is above it, of strangers, and of parallel alone."""
    found = []
    for name in dict.fromkeys(names_used(source)):
        other = package_of(name)
        if other and other != package:
            strangers = any({package, other} <= group for group in STRANGERS)
            if DOWN[other] > DOWN[package] or strangers or (other in OF_TOOLS and package != "commands"):
                found.append(name)
        if package != "parallel" and f"{name}.".startswith(tuple(f"{module}." for module in OF_PARALLEL)):
            found.append(name)
    return found


def test_imports_point_down_and_parallel_alone_uses_deepspeed_and_torch_distributed():
    wrong, num_files = [], 0
    for path in sorted((ROOT / "matey").rglob("*.py")):
        package = path.relative_to(ROOT / "matey").parts[0].removesuffix(".py")
        if package != "__init__":  # which names what the package offers
            wrong += [f"{path.relative_to(ROOT)} uses {name}" for name in faults(path.read_text(), package)]
            num_files += 1
    assert wrong == [] and num_files > 100


def test_launchers_do_not_import_the_simulations():
    paths = [*(ROOT / "launch").glob("*.py"), ROOT / "matey" / "commands" / "evaluate.py"]
    names = [name for path in paths for name in names_used(path.read_text())]
    used = {package_of(name) for name in names}
    assert "train" in used and used.isdisjoint(OF_TOOLS)
    assert [name for name in names if package_of(name) == "commands"] == ["matey.commands.evaluate.main"]


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("train", "import deepspeed", ["deepspeed"]),
        ("train", "import deepspeed.comm", ["deepspeed.comm"]),
        ("train", "def f():\n    from deepspeed import comm as c", ["deepspeed.comm"]),
        ("train", "from torch import distributed", ["torch.distributed"]),
        ("train", "import torch\ntorch.distributed.barrier()", ["torch.distributed.barrier", "torch.distributed"]),
        ("train", "import torch as t\nt.distributed", ["torch.distributed"]),
        ("train", "import torch\ntorch.nn.Linear(1, 2).distributed", []),
        ("train", "import deepspeed_extras", []),
        ("parallel", "import deepspeed.comm\nfrom torch import distributed", []),
        ("model", "from matey import open_dataset", ["matey.open_dataset"]),
        ("model", "from matey import data", ["matey.data"]),
        ("model", "import matey\nmatey.train", ["matey.train"]),
        ("tokens", "from matey.model.seam import Seam", ["matey.model.seam.Seam"]),
        ("evaluate", "from matey.simulate.systems import SYSTEMS", ["matey.simulate.systems.SYSTEMS"]),
        ("train", "from matey import simulate", ["matey.simulate"]),
        ("simulate", "from matey.simulate.systems import SYSTEMS", []),
        ("train", "from matey import FieldBatch, MateyModel\nimport matey\nmatey.__version__", []),
    ],
)
def test_every_way_to_import_what_a_package_may_not_is_found(package, source, expected):
    assert faults(source, package) == expected


def test_importing_matey_needs_neither_deepspeed_nor_mpi():
    unwanted = ("deepspeed", "mpi4py", "matplotlib")
    code = "from matey import MateyModel, open_dataset, rollout; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in unwanted if name in result.stdout.split()] == []


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
