"""Where things are that tests read: the checkout, the programs of this environment, the real files beside the checkout."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
BIN = Path(sys.executable).parent


def published_file(name):
    """Return a file of the published generators, or skip the test where there is none."""
    path = SHARED / "pdebench" / name
    if not path.exists():
        pytest.skip(f"no {path.name} of the published generator beside the repository")
    return path
