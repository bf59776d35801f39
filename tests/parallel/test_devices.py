"""Each rank gets its own device from DeepSpeed's code, under every launcher and however the node's devices are shown."""

import re

import pytest

from matey.parallel.environment import find_environment, variables_for_deepspeed
from tests.support.launchers import FRONTIER, MPIRUN_ANY, STEP, TORCH
from tests.support.paths import BIN
from tests.support.programs import preloaded, start

CASES = "tests/parallel/device_cases.py"


def devices_asked_for(output, num_ranks):
    """The one number that each rank asks for wherever it asks."""
    asked = {
        int(rank): set(re.findall(r", (\d+)\)", what)) for rank, what in re.findall(r"rank (\d+) asks for (.*)", output)
    }
    assert sorted(asked) == list(range(num_ranks)), output
    assert all(len(numbers) == 1 for numbers in asked.values()), output
    return [int(*asked[rank]) for rank in range(num_ranks)]


@pytest.mark.parametrize(("devices", "expected"), [(1, [0, 0]), (2, [0, 1])])
def test_ranks_of_mpirun_ask_for_the_devices_they_are_shown(devices, expected):
    visible = "$OMPI_COMM_WORLD_RANK" if devices == 1 else "0,1"
    script = f"CUDA_VISIBLE_DEVICES={visible} {preloaded().python} {CASES} --devices={devices}"
    result = start([*MPIRUN_ANY, "-np", "2", "bash", "-c", script])
    assert devices_asked_for(result.stdout + result.stderr, 2) == expected


@pytest.mark.parametrize(
    "launcher",
    [
        [BIN / "torchrun", "--nproc_per_node", "2"],
        pytest.param([BIN / "deepspeed", "--num_gpus", "2"], marks=pytest.mark.slow),
    ],
)
def test_ranks_of_launchers_that_show_all_devices_ask_for_one_each(launcher):
    result = start([*launcher, CASES, "--devices=2"])
    assert devices_asked_for(result.stdout + result.stderr, 2) == [0, 1]


@pytest.mark.parametrize(
    ("variables", "devices", "local_rank", "expected"),
    [
        (FRONTIER, 1, 3, 0),
        (FRONTIER, 8, 3, 3),
        (STEP, 8, 3, 3),
        ({**TORCH, "LOCAL_WORLD_SIZE": "8"}, 8, 1, 1),
        (STEP, 0, 3, 3),
    ],
)
def test_the_local_rank_stays_known_where_the_device_has_another_number(variables, devices, local_rank, expected):
    environment = find_environment(variables, devices)
    assert environment.local_rank == local_rank
    told = variables_for_deepspeed(environment, {"OMPI_COMM_WORLD_LOCAL_RANK": str(local_rank)})
    assert told["LOCAL_RANK"] == told["OMPI_COMM_WORLD_LOCAL_RANK"] == str(expected)
    assert "OMPI_COMM_WORLD_LOCAL_RANK" not in variables_for_deepspeed(environment, {})
