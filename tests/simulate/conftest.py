"""Where the small files made by PDEBench's own generators are, for comparison."""

import h5py
import pytest
import torch
import yaml

from tests.support.paths import published_file


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


def gas_trajectories(name):
    """Return density, pressure and velocity of a published file of compressible flow, ``(b, t, f, x, y)``."""
    with h5py.File(published_file(name)) as file:
        fields = [torch.from_numpy(file[field][:]).double() for field in ("density", "pressure", "Vx", "Vy")]
        return torch.stack(fields, dim=2)


@pytest.fixture(scope="session")
def published_rand():
    return gas_trajectories("cfd_rand/2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_64_Train.hdf5")


@pytest.fixture(scope="session")
def published_turbulence():
    return gas_trajectories("cfd_turb/2D_CFD_Turb_M1.0_Eta1e-08_Zeta1e-08_periodic_64_Train.hdf5")
