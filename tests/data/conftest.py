"""Small files that every test can open, and the real files if present."""

import pytest

from tests.support.layout_files import write_seed_groups
from tests.support.paths import SHARED


@pytest.fixture
def shallow_water_file(tmp_path):
    return write_seed_groups(tmp_path / "swe" / "2D_rdb_NA_NA.h5", "shallow_water")


@pytest.fixture
def diffusion_reaction_file(tmp_path):
    return write_seed_groups(tmp_path / "dr" / "2D_diff-react_NA_NA.h5", "diffusion_reaction")


@pytest.fixture
def real_file():
    """Return the path of a file made by the public generators, or skip where they are not at hand."""

    def find(name):
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not at hand")
        return SHARED / name

    return find
