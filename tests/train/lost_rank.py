"""Started by test_checkpoint.py on two ranks: rank 1 ends, and rank 0 saves or loads a checkpoint all the same."""

import sys
from pathlib import Path

from matey.checkpoints.run_files import step_name
from matey.parallel.collectives import barrier, rank
from matey.parallel.environment import find_environment, start_processes
from matey.process.ending import end_process
from matey.train.checkpoint import load_checkpoint
from tests.support.engine_cases import Training


def main(what: str, folder: Path) -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    training = Training("zero3", folder)
    training.step(1)
    training.save(1)
    barrier()
    if rank() == 1:
        end_process(1)
    if what == "save":
        training.save(2)
    else:
        load_checkpoint(training.engine, training.folder.checkpoints / step_name(1), training.average)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
