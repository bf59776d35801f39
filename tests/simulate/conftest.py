"""Where the small files made by PDEBench's own generators are, for comparison."""

from pathlib import Path

import h5py
import pytest
import yaml

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "pdebench"


def published_file(name):
    """Return a file of the published generators, or skip the test where there is none."""
    path = PUBLISHED / name
    if not path.exists():
        pytest.skip(f"no {path.name} of the published generator beside the repository")
    return path


def published_trajectories(path):
    """Return the settings of the simulation and the data of each group of a file."""
    with h5py.File(path) as file:
        settings = [yaml.safe_load(group.attrs["config"])["sim"] for group in file.values()]
        return settings, [group["data"][:] for group in file.values()]


@pytest.fixture
def published_dam_break():
    return published_file("swe/2D_rdb_NA_NA.h5")


@pytest.fixture
def published_diffusion_reaction():
    return published_file("diffusion_reaction/2D_diff-react_NA_NA.h5")


@pytest.fixture
def read_trajectories():
    return published_trajectories
