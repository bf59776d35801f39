"""Started by test_failure.py on two ranks: launch/pretrain.py with other arguments for rank 1, as on a node that differs."""

import os
import runpy
import sys

if __name__ == "__main__":
    split = sys.argv.index("--")
    for_all, for_rank_one = sys.argv[1:split], sys.argv[split + 1 :]
    rank = os.environ.get("RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
    sys.argv = ["launch/pretrain.py", *for_all, *(for_rank_one if rank == "1" else [])]
    runpy.run_path("launch/pretrain.py", run_name="__main__")
