"""The layers of the package, the linter, and the words of the README."""

import ast
import subprocess
import sys

from tests.conftest import ROOT

LAYERS = [
    {"config", "fields"},
    {"tokens"},
    {"model", "data", "simulate"},
    {"train", "evaluate", "parallel", "checkpoints", "scaling"},
]
DOWN = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
STRANGERS = [{"model", "data", "simulate"}]


def imports_of(path):
    """Every module that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def package_files():
    for path in sorted((ROOT / "matey").rglob("*.py")):
        yield path, path.relative_to(ROOT / "matey").parts[0].removesuffix(".py")


def test_imports_point_down_only():
    wrong = []
    for path, package in package_files():
        for module in imports_of(path):
            if module.startswith("matey.") and package != "__init__":
                other = module.split(".")[1]
                strangers = any({package, other} <= group and package != other for group in STRANGERS)
                if DOWN[other] > DOWN[package] or strangers:
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_parallel_alone_imports_torch_distributed_and_deepspeed():
    wrong = []
    for path, package in package_files():
        for module in imports_of(path):
            if package != "parallel" and module.split(".")[:2] in (["torch", "distributed"], ["deepspeed"]):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_importing_matey_needs_neither_deepspeed_nor_mpi():
    unwanted = ("deepspeed", "mpi4py", "matplotlib")
    code = "from matey import MateyModel, open_dataset, rollout; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in unwanted if name in result.stdout.split()] == []


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
