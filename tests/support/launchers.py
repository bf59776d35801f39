"""How two ranks are started, and the variables that launchers set."""

import sys

from tests.support.paths import BIN

PYTHON = [sys.executable]
TORCHRUN = [BIN / "torchrun", "--nproc_per_node", "2"]
DEEPSPEED = [BIN / "deepspeed", "--num_gpus", "2"]
MPIRUN_ANY = [BIN / "mpirun", "--allow-run-as-root", "--oversubscribe"]
MPIRUN = [*MPIRUN_ANY, "-np", "2", sys.executable]
SRUN = [sys.executable, "-m", "tests.launch.srun_stand_in", sys.executable]
LAUNCHERS = {"deepspeed": DEEPSPEED, "torchrun": TORCHRUN, "mpirun": MPIRUN}

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
