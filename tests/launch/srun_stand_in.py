"""Two tasks of a command as srun --kill-on-bad-exit starts and ends them: when one ends with an error, the other is signalled.

    python -m tests.launch.srun_stand_in python launch/pretrain.py ...

Slurm sends SIGTERM, and SIGKILL a while later; this sends SIGTERM until the task is gone, so that no moment of its end
is left out. The exit code is that of srun: the largest of the tasks', where none died of a signal.
"""

import os
import signal
import subprocess
import sys
import time

JOB = {
    "SLURM_JOB_ID": str(os.getpid()),
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "node1",
    "SLURM_TASKS_PER_NODE": "2",
}


def main(command):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    of_task = [{**os.environ, **JOB, "SLURM_PROCID": task, "SLURM_LOCALID": task} for task in "01"]
    tasks = [subprocess.Popen(command, env=variables) for variables in of_task]
    while running := [task for task in tasks if task.poll() is None]:
        if any(task.returncode for task in tasks):
            for task in running:
                task.terminate()
        time.sleep(0.001)
    codes = [task.returncode for task in tasks]
    return 128 - min(codes) if min(codes) < 0 else max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
