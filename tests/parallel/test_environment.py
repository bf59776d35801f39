"""How a process finds out about its run and its device, from variables and from real launchers."""

import socket
import sys

import pytest
import torch

from matey.config import ConfigError
from matey.parallel.environment import (
    check_address,
    check_port_is_free,
    expand_counts,
    find_environment,
    first_node,
    variables_for_deepspeed,
)
from tests.support.programs import MPIRUN, clean_environment, start

# Task 27 of 32, the fourth on the fourth of four nodes.
STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "32",
    "SLURM_STEP_NUM_TASKS": "32",
    "SLURM_STEP_TASKS_PER_NODE": "8(x4)",
    "SLURM_STEP_NODELIST": "frontier[00098-00100,02001]",
    "SLURM_PROCID": "27",
    "SLURM_LOCALID": "3",
    "SLURM_NODEID": "3",
}
FRONTIER = {**STEP, "SLURM_GPUS_PER_TASK": "1", "SLURM_GPUS_ON_NODE": "8"}
TORCH = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def describe(launcher, **variables):
    """What each process of a real launcher takes itself for, with some variables set."""
    command = [*launcher, "-m", "matey.parallel.environment"]
    result = start(command, timeout=60, env=clean_environment() | variables)
    return result.stdout + result.stderr


def test_without_a_launcher_there_is_one_process_and_torchruns_variables_are_taken():
    environment = find_environment({})
    assert (environment.launcher, environment.rank, environment.world_size) == ("none", 0, 1) and environment.port != 0
    environment = find_environment({**TORCH, "LOCAL_WORLD_SIZE": "4"})
    assert (environment.rank, environment.world_size, environment.local_rank) == (5, 8, 1)
    assert (environment.local_world_size, environment.address, environment.port) == (4, "node1", 29500)


def test_two_runs_of_the_deepspeed_launcher_do_not_share_its_constant_port():
    assert find_environment({**TORCH, "CROSS_SIZE": "1"}, num_devices=0).port != 29500
    assert find_environment({**TORCH, "CROSS_SIZE": "2"}, num_devices=0).port == 29500
    assert find_environment({**TORCH, "CROSS_SIZE": "1", "MASTER_PORT": "3442"}, num_devices=0).port == 3442


def test_half_a_launcher_is_an_error_that_names_what_is_missing():
    with pytest.raises(ConfigError, match="LOCAL_RANK and MASTER_ADDR and MASTER_PORT not set, as torchrun"):
        find_environment({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("rank", ["-1", "8"])
def test_a_rank_beyond_their_number_is_an_error_instead_of_a_wait(rank):
    with pytest.raises(ConfigError, match=f"rank {rank} of 8"):
        find_environment({**TORCH, "RANK": rank}, num_devices=0)


def test_a_task_of_srun_finds_its_rank_node_and_device():
    environment = find_environment(FRONTIER, num_devices=1)
    assert (environment.launcher, environment.rank, environment.world_size) == ("slurm", 27, 32)
    assert (environment.local_rank, environment.local_world_size) == (3, 8)
    assert environment.address == "frontier00098"
    # Each task sees its own GCD only, as number 0; without the binding it counts along the node's.
    assert (str(environment.device), environment.backend) == ("cuda:0", "nccl")
    assert str(find_environment({**STEP, "SLURM_TRES_PER_TASK": "cpu:7,gres/gpu:1"}, num_devices=1).device) == "cuda:0"
    assert str(find_environment({**STEP, "SLURM_GPUS_ON_NODE": "8"}, num_devices=1).device) == "cuda:0"
    # --gpus-per-task=1 --gpu-bind=none shows all eight to each task.
    assert str(find_environment(FRONTIER, num_devices=8).device) == "cuda:3"
    assert str(find_environment(STEP, num_devices=8).device) == "cuda:3"
    assert (str(find_environment(STEP, num_devices=0).device), find_environment(STEP, 0).backend) == ("cpu", "gloo")


def test_all_736_tasks_of_92_nodes_agree_where_rank_0_is():
    found = set()
    for rank in range(736):
        node, local = divmod(rank, 8)
        variables = {
            **FRONTIER,
            "SLURM_STEP_NODELIST": "frontier[00001-00050,00100,04000-04040]",
            "SLURM_STEP_TASKS_PER_NODE": "8(x92)",
            "SLURM_STEP_NUM_TASKS": "736",
            "SLURM_PROCID": str(rank),
            "SLURM_NODEID": str(node),
            "SLURM_LOCALID": str(local),
        }
        environment = find_environment(variables, num_devices=1)
        assert (environment.rank, environment.local_rank) == (rank, local)
        found.add((environment.address, environment.port, environment.world_size, environment.local_world_size))
    assert len(found) == 1 and found.pop()[0] == "frontier00001"


def test_another_job_and_another_step_of_a_job_listen_on_another_port():
    changes = ({}, {"SLURM_JOB_ID": "1234568"}, {"SLURM_STEP_ID": "1"}, {"SLURM_STEP_ID": "2"})
    ports = [find_environment({**STEP, **change}, num_devices=0).port for change in changes]
    assert len(set(ports)) == 4
    assert all(15_000 <= port < 25_000 for port in ports)


def test_what_a_job_script_sets_is_taken_and_ranks_of_a_node_are_counted_as_by_srun():
    by_hand = {**TORCH, "RANK": "27", "WORLD_SIZE": "32", "LOCAL_RANK": "3"}
    environment = find_environment({**STEP, **by_hand}, num_devices=8)
    assert (environment.launcher, environment.local_world_size, str(environment.device)) == ("torch", 8, "cuda:3")
    environment = find_environment({**STEP, "MASTER_ADDR": "10.1.2.3", "MASTER_PORT": "3442"}, num_devices=0)
    assert (environment.launcher, environment.address, environment.port) == ("slurm", "10.1.2.3", 3442)


@pytest.mark.parametrize(
    "shell",
    [
        {"SLURM_STEP_ID": None, "SLURM_STEP_NUM_TASKS": None},  # a batch script, which has SLURM_PROCID=0
        {"SLURM_STEP_ID": "4294967290"},  # the interactive step of salloc
        {"SLURM_STEP_ID": "4294967291"},  # the batch step
        {"SLURM_STEP_ID": None, "SLURM_PROCID": None},  # salloc on a login node
    ],
)
def test_python_in_a_slurm_shell_without_srun_is_one_process(shell):
    variables = {name: value for name, value in {**STEP, "SLURM_PROCID": "0", **shell}.items() if value is not None}
    environment = find_environment(variables, num_devices=8)
    assert (environment.launcher, environment.world_size, str(environment.device)) == ("none", 1, "cuda:0")


def test_launchers_under_srun_start_the_ranks_themselves():
    one_a_node = {**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_GPUS_PER_TASK": "8"}
    torchrun = {**one_a_node, **TORCH, "TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "8"}
    environment = find_environment(torchrun, num_devices=8)
    assert (environment.launcher, environment.rank, str(environment.device)) == ("torch", 5, "cuda:1")
    assert find_environment({**STEP, "OMPI_COMM_WORLD_SIZE": "1"}, num_devices=0).world_size == 1


@pytest.mark.parametrize(
    ("variables", "num_devices", "words"),
    [
        (STEP, 4, ["8 ranks", "4 device"]),
        ({**TORCH, "LOCAL_WORLD_SIZE": "8"}, 1, ["8 ranks", "1 device"]),
        ({**STEP, "MATEY_LAUNCHER": "slrum"}, 0, ["'slrum'", "Did you mean 'slurm'"]),
        ({**TORCH, "MASTER_PORT": "text"}, 0, ["MASTER_PORT is 'text', not a whole number"]),
    ],
)
def test_a_contradiction_names_both_sides(variables, num_devices, words):
    with pytest.raises(ConfigError) as error:
        find_environment(variables, num_devices)
    for word in words:
        assert word in str(error.value)


def test_devices_that_torch_cannot_use_are_an_error_unless_the_cpu_was_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="SLURM_GPUS_ON_NODE is 8 but torch sees no device"):
        find_environment(FRONTIER)
    assert "cpu, gloo" in str(find_environment(FRONTIER | {"DS_ACCELERATOR": "cpu"}))


def test_ranks_of_mpirun_hear_the_address_and_a_free_port_of_rank_0():
    text = describe(MPIRUN)
    places = {line.partition("rank 0 at ")[2] for line in text.splitlines() if "rank 0 at" in line}
    assert len(places) == 1 and "127.0.0.1" in places.pop(), text
    assert "rank 0 of 2" in text and "rank 1 of 2" in text, text


def test_mpi_under_srun_takes_its_ranks_and_checks_their_number():
    text = describe(MPIRUN, **STEP, MATEY_LAUNCHER="mpi")
    assert "rank 1 of 2" in text, text  # mpirun under srun: the step is not the ranks'
    text = describe([sys.executable], **STEP, MATEY_LAUNCHER="mpi")
    assert "SLURM_STEP_NUM_TASKS is 32 but mpi4py sees a world of 1" in text, text


def test_an_unresolved_address_and_a_port_in_use_are_named_within_seconds():
    with pytest.raises(ConfigError, match="'no such host', cannot be resolved on .*; set MASTER_ADDR"):
        check_address("no such host")
    check_address("127.0.0.1")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of .* is in use by another program; set MASTER_PORT"):
            check_port_is_free(port)
    check_port_is_free(port)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("frontier[00001-00003,00100]", "frontier00001"),
        ("a[08-11],b2,c[7]", "a08"),
        ("rack[1-2]node[01-02]-ib", "rack1node01-ib"),
    ],
)
def test_the_first_node_of_slurms_list_is_named(text, name):
    assert first_node(text) == name


def test_tasks_per_node_expand():
    assert expand_counts("8(x91),4") == [8] * 91 + [4]


@pytest.mark.parametrize(
    ("variables", "devices", "local_rank", "expected"),
    [(FRONTIER, 1, 3, 0), (FRONTIER, 8, 3, 3), ({**TORCH, "LOCAL_WORLD_SIZE": "8"}, 8, 1, 1)],
)
def test_the_local_rank_stays_known_where_the_device_has_another_number(variables, devices, local_rank, expected):
    environment = find_environment(variables, devices)
    assert environment.local_rank == local_rank
    told = variables_for_deepspeed(environment, {"OMPI_COMM_WORLD_LOCAL_RANK": str(local_rank)})
    assert told["LOCAL_RANK"] == told["OMPI_COMM_WORLD_LOCAL_RANK"] == str(expected)
    assert "OMPI_COMM_WORLD_LOCAL_RANK" not in variables_for_deepspeed(environment, {})
