#!/usr/bin/env bash
# What the job scripts of this folder share, sourced by them: `run_job PROGRAM FLAGS...` runs the program with one task a GPU; its exit
# code is then in `code`, for `end_job`.
DEEPSPEED_CONFIG="${DEEPSPEED_CONFIG:-ds_configs/bf16_zero1.json}" # how DeepSpeed runs it
VENV="${VENV:-$PWD/.venv}"                                     # virtual environment with this package
MODULES="${MODULES:-}"                                         # modules to load before it, such as "gcc/13.2 cuda/12.6"
MAX_JOBS="${MAX_JOBS:-20}"                                     # jobs in the chain, this one included; 1 ends it here
# export NCCL_SOCKET_IFNAME=ib0                                # network for NCCL's first contact, where it guesses wrong

run_job() {
    set +u # the scripts behind `module` and `activate` may use variables that are not set
    for name in $MODULES; do
        module load "$name"
    done
    if [[ -r "$VENV/bin/activate" ]]; then
        # shellcheck source=/dev/null
        source "$VENV/bin/activate"
    elif [[ -x "$VENV/bin/python" ]]; then # an environment of conda
        export PATH="$VENV/bin:$PATH"
    else
        echo "error: there is no virtual environment $VENV: make it (make .venv/installed), or say where it is: VENV=FOLDER sbatch ..." >&2
        exit 2
    fi
    set -u
    local cores="${SLURM_CPUS_PER_TASK:-1}" # Slurm says nothing where one core a task was not asked for but given
    export OMP_NUM_THREADS="$cores"

    # The GPUs of a node are shown to all its tasks, and each takes that of its local rank: peers then reach each other's
    # memory directly, which they cannot where Slurm shows each task a single one (--gpus-per-task).
    set -- "$1" --deepspeed_config "$DEEPSPEED_CONFIG" --config "$CONFIG" --resume "${@:2}"
    run_with_signals srun --export=ALL --kill-on-bad-exit=1 --cpus-per-task="$cores" python -u "$@"
    [[ "$code" != 0 ]] || python "$@" --is_done || code=$? # the exit code of a launcher is not always the run's
    export CONFIG DEEPSPEED_CONFIG VENV MODULES # for the next job
}

# shellcheck source=launch/next_job.sh
source launch/next_job.sh
