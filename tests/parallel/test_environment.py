"""How a process finds out about its run."""

import pytest

from matey.config import ConfigError
from matey.parallel.environment import find_environment


def test_without_a_launcher_there_is_one_process():
    environment = find_environment({})
    assert (environment.launcher, environment.rank, environment.world_size) == ("none", 0, 1)
    assert find_environment({}).port != 0


def test_the_variables_of_torchrun_and_deepspeed_are_taken():
    variables = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    environment = find_environment({**variables, "LOCAL_WORLD_SIZE": "4"})
    assert (environment.rank, environment.world_size, environment.local_rank) == (5, 8, 1)
    assert (environment.local_world_size, environment.address, environment.port) == (4, "node1", 29500)


def test_half_a_launcher_is_an_error_that_names_what_is_missing():
    with pytest.raises(ConfigError, match="LOCAL_RANK and MASTER_ADDR and MASTER_PORT not"):
        find_environment({"RANK": "0", "WORLD_SIZE": "2"})
