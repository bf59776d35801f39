"""A private Slurm that all tests of job scripts share; it starts in a second."""

import sys
from pathlib import Path

import pytest

from tests.support.programs import preloaded
from tests.support.slurm_cluster import Cluster, start_slurm, what_is_missing
from tests.support.small_files import write_swe


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Cluster:
    if what_is_missing():
        pytest.skip(what_is_missing())
    folder = tmp_path_factory.mktemp("slurm")
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    with start_slurm(folder / "cluster") as cluster:
        cluster.variables |= {
            "DEEPSPEED_CONFIG": "ds_configs/zero1.json",
            "VENV": str(Path(sys.executable).parent.parent),
        }
        yield cluster


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> dict[str, str]:
    """The variables of a job whose tasks, each on one core, are forked from `preloaded`: for those that no test looks up."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "bin").mkdir()
    (folder / "bin" / "activate").write_text(f"PATH={preloaded().bin}:$PATH\n")
    return {"VENV": str(folder)}
