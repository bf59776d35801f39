"""The recipes of containers: linted, made from files that there are, and alike in what they install."""

import re
import shutil
import subprocess

import pytest

from tests.support.paths import BIN, ROOT

FOLDER = ROOT / "containers"


def tool(name):
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, of the extra 'test'")
    return found


def sections():
    """The sections of the Apptainer definition by their names."""
    _, *parts = re.split(r"^%(\w+)$", (FOLDER / "apptainer.def").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_hadolint_finds_nothing():
    result = subprocess.run([tool("hadolint"), FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_what_is_copied_is_there_and_not_ignored():
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", (FOLDER / "Dockerfile").read_text(), re.M)]
    names = {name for line in copied for name in line}
    allowed = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert names == allowed and all((ROOT / name).exists() for name in names)
    lines = [line.split() for line in sections()["files"].strip().splitlines()]
    assert {source for source, _ in lines} == names
    assert all(target == f"/opt/matey/{source}" for source, target in lines)
