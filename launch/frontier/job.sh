#!/usr/bin/env bash
# What the job scripts of this folder share, sourced by them: `run_job PROGRAM FLAGS...` prepares all nodes and runs the program with one
# task a GCD, whose exit code is then in `code`, for `end_job`.
DEEPSPEED_CONFIG="${DEEPSPEED_CONFIG:-ds_configs/frontier_zero1.json}" # how DeepSpeed runs it
PACKED="${PACKED:-$PWD/matey_env.tar.gz}"                      # the environment, packed with conda-pack
MODULES="${MODULES:-PrgEnv-gnu/8.7.0 cpe/26.03 miniforge3/23.11.0-0 rocm/7.1.1}" # modules that it was built with
LAUNCHER="${LAUNCHER:-mpi}"           # mpi: rank 0 tells its address over Cray MPICH; slurm: from the node list, no MPI
NETWORK="${NETWORK:-OFI}"             # the plug-in's own name, see docs/slurm.md; "AWS Libfabric" before its version 1.11
DISK="${DISK:-/mnt/bb/${USER:-$(id -un)}}" # the node's own disk
MAX_JOBS="${MAX_JOBS:-20}"            # jobs in the chain, this one included; 1 ends it here, as the debug QOS demands

run_job() {
    # Of an interactive job in which this one was submitted: srun would take its number of tasks for this job's.
    unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK
    # SIGUSR1 to all steps of the job would end these; see docs/reliability.md.
    local on_each_node=(srun --export=ALL -N "$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 -c 56 bash -c "trap '' USR1; exec \"\$@\"" bash)

    # rccl-net-plugin is the libfabric plug-in that takes RCCL over Slingshot instead of TCP, with HPE's settings for it.
    set +u # the scripts behind `module` use variables that are not set
    for name in $MODULES rccl-net-plugin craype-accel-amd-gfx90a; do
        module load "$name"
    done
    set -u
    # The modules are not the default ones, whose libraries would be found first.
    if [[ -n "${CRAY_LD_LIBRARY_PATH:-}" ]]; then
        export LD_LIBRARY_PATH="$CRAY_LD_LIBRARY_PATH${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
    export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-hsn0,hsn1,hsn2,hsn3}" # Slingshot; the guide's advice for hangs at the start is hsn0 alone
    export FI_CXI_RDZV_PROTO=alt_read
    # Without the plug-in RCCL would quietly use TCP: stop instead. The network of a job on one node is not set up for it.
    if ((SLURM_JOB_NUM_NODES > 1)); then export NCCL_NET="$NETWORK"; else export NCCL_NET=Socket; fi

    # 736 tasks that import Python from Orion wait for its metadata server: a copy on each node's own disk.
    # The package comes from the folder of submission, so that the environment is packed once and not for each change.
    "${on_each_node[@]}" mkdir -p "$DISK/matey_env" "$DISK/matey_code" "$DISK/miopen"
    tar -cf "$DISK/code.tar" --exclude=__pycache__ matey launch tools ds_configs models
    sbcast -pf "$DISK/code.tar" "$DISK/matey_code.tar" || { echo "sbcast failed: no copy of the code on every node" >&2; exit 1; }
    sbcast -pf "$PACKED" "$DISK/matey_env.tar.gz" || { echo "sbcast failed: no copy of $PACKED on every node" >&2; exit 1; }
    "${on_each_node[@]}" tar -xf "$DISK/matey_code.tar" -C "$DISK/matey_code"
    "${on_each_node[@]}" tar -I "$(command -v pigz || echo gzip)" -xf "$DISK/matey_env.tar.gz" -C "$DISK/matey_env"
    export PATH="$DISK/matey_env/bin:$PATH"
    "${on_each_node[@]}" conda-unpack
    export PYTHONPATH="$DISK/matey_code:$PWD"

    # Caches of kernels: in the home folder, tasks of all nodes would lock one file.
    export MIOPEN_USER_DB_PATH="$DISK/miopen" MIOPEN_CUSTOM_CACHE_DIR="$DISK/miopen"
    export TORCH_EXTENSIONS_DIR="$DISK/extensions" TRITON_CACHE_DIR="$DISK/triton"
    # Boxes of adaptive meshes change from step to step: MIOpen would time all its kernels for the shapes of each.
    export MIOPEN_FIND_MODE="${MIOPEN_FIND_MODE:-FAST}"
    export OMP_NUM_THREADS=7
    export MATEY_LAUNCHER="$LAUNCHER"
    export SLURM_GPUS_PER_TASK=1 # srun's option below, which the tasks read too: each sees one GCD, as device 0

    # mpi4py comes before torch: after it, Cray MPICH cannot choose the network card near the task (PyTorch on Frontier).
    # An error before the program takes care of its own, as in an import, ends the task at once: MPI_Finalize would wait.
    first="import os, runpy, sys, traceback; sys.argv.pop(0)
sys.excepthook = lambda *error: (traceback.print_exception(*error), sys.stderr.flush(), os._exit(1))"
    if [[ "$LAUNCHER" == mpi ]]; then first="import mpi4py.MPI; $first"; fi
    first="from matey.process.start import hold; hold(); $first" # which would kill the run while it imports
    set -- "$@" --deepspeed_config "$DEEPSPEED_CONFIG" --config "$CONFIG" --resume
    run_with_signals srun --export=ALL -N "$SLURM_JOB_NUM_NODES" --ntasks-per-node=8 -c 7 --gpus-per-task=1 --gpu-bind=closest --kill-on-bad-exit=1 \
        python -P -u -c "$first
runpy.run_path(sys.argv[0], run_name='__main__')" "$@"
    [[ "$code" != 0 ]] || python "$@" --is_done || code=$? # the exit code of a launcher is not always the run's
    export CONFIG DEEPSPEED_CONFIG PACKED MODULES LAUNCHER NETWORK DISK # for the next job
}

# shellcheck source=launch/next_job.sh
source launch/next_job.sh
