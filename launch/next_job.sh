#!/usr/bin/env bash
# Sourced by the job scripts: `end_job CODE FLAGS...` ends the job with the code of its run, or submits the next job of the chain.

# SIGUSR1 to the script alone, while it prepares the nodes, would end it and its chain; `run_with_signals` passes it on.
early=''
trap 'early=1' USR1
TASKS_START="${TASKS_START:-30}" # seconds after which all tasks of srun hold signals back until they can save

if [[ ! "$MAX_JOBS" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: MAX_JOBS is '$MAX_JOBS', expected the number of jobs in the chain, such as 20" >&2
    exit 2
fi

# Variables of an interactive job in which this one was submitted come along, and srun and the next job would take them for its
# own. What this job was given, Slurm's daemon tells.
asked="$(scontrol --oneliner show job "${SLURM_JOB_ID:-}" 2> /dev/null || true)"
if [[ "$asked" == JobId=* ]]; then
    # Of 0, as in --gpus-per-node=0, it says nothing.
    [[ "${SLURM_GPUS:-}" == 0 || "$asked" =~ \ TresPerJob=[^\ ]*gpu ]] || unset SLURM_GPUS
    [[ "${SLURM_GPUS_PER_NODE:-}" == 0 || "$asked" =~ \ TresPerNode=[^\ ]*gpu ]] || unset SLURM_GPUS_PER_NODE
    [[ "${SLURM_MEM_PER_NODE:-}" == 0 || "$asked" =~ \ MinMemoryNode=[1-9] ]] || unset SLURM_MEM_PER_NODE
    [[ "$asked" =~ \ MinMemoryCPU=[1-9] ]] || unset SLURM_MEM_PER_CPU
    [[ "$asked" =~ \ MemPerTres=[^\ ]*gpu ]] || unset SLURM_MEM_PER_GPU
fi
# These the scripts never ask for. From another job or step, they would end srun, hide GPUs, or deal ranks out across the nodes.
unset SLURM_CPUS_PER_GPU SLURM_NTASKS_PER_GPU SLURM_GPUS_PER_TASK SLURM_TRES_BIND SLURM_GPU_BIND SLURM_CPU_BIND SLURM_DISTRIBUTION

# Slurm's daemon does not always answer at once.
asked_again() {
    for pause in 1 10 30 60 0; do
        "$@" && return
        sleep "$pause"
    done
    return 1
}

# A task of an array goes on by itself.
job="${SLURM_JOB_ID:-}"
[[ -z "${SLURM_ARRAY_TASK_ID:-}" ]] || job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"

# Whether a job of this name waits for this one to end: Slurm may have taken it although sbatch got no answer.
is_queued() {
    asked_again squeue --noheader --states=PENDING --name="$SLURM_JOB_NAME" --format=%E 2> /dev/null |
        grep --quiet --word-regexp "afterany:$job"
}

# Slurm starts a job again whose node has failed, and also one that was preempted, whose run may have saved and gone on by then.
if ((${SLURM_RESTART_COUNT:-0} > 0)) && is_queued; then
    echo "This job was started again, but had submitted the next one, which goes on."
    exit 0
fi

# A --signal given to sbatch is known to the accounting alone. SBATCH_SIGNAL, like all variables, reaches the next job by itself.
signal="$(sacct --noheader --parsable2 --jobs="${SLURM_JOB_ID:-}" --format=SubmitLine 2> /dev/null |
    grep --only-matching --max-count=1 -e '--signal[= ][^ ]*' || true)"
notice="${signal:-${SBATCH_SIGNAL:-$(scontrol write batch_script "${SLURM_JOB_ID:-}" - 2> /dev/null |
    grep --max-count=1 '^#SBATCH.* --signal' || true)}}"
limit=$((${SLURM_JOB_END_TIME:-0} - ${SLURM_JOB_START_TIME:-0}))
if [[ "$notice" =~ @([0-9]+) ]] && ((10 * BASH_REMATCH[1] > 9 * limit && limit > 0)); then
    echo "error: the job has $limit s, and is asked to leave ${BASH_REMATCH[1]} s before their end: expected a notice of at most nine" \
        "tenths of its time; give it more (--time), or a shorter notice where you submit (SBATCH_SIGNAL=USR1@60)" >&2
    exit 2
fi

# Runs a command such as srun; its exit code is then in `code`. SIGUSR1 to the script alone (--signal=B:USR1@600, scancel --batch)
# goes on to it, and so to all tasks, when these hold it back; with the signal to all, they get it twice, which changes nothing. `scancel` sends SIGTERM, which
# ends script and chain.
run_with_signals() {
    "$@" &
    local run=$! begun=$SECONDS signalled
    trap 'signalled=1; pass_on' USR1
    [[ -z "$early" ]] || pass_on
    while :; do
        signalled='' code=0
        wait "$run" || code=$?
        [[ -n "$signalled" ]] || break # else the signal ended the waiting alone
    done
    trap '' USR1 # what was asked for is done
}

pass_on() {
    { sleep "$((begun + TASKS_START > SECONDS ? begun + TASKS_START - SECONDS : 0))" && kill -USR1 "$run" 2> /dev/null; } &
}

end_job() {
    local code="$1"
    shift
    if [[ "$code" == 0 && -n "${THEN:-}" ]]; then
        local then="$THEN"
        unset THEN MAX_JOBS # a job that it submits is the first of a chain of its own
        exec bash -c "$then"
    fi
    # 75: the run was asked to leave and has saved a whole checkpoint. Any other code is left for somebody to look at.
    [[ "$code" == 75 ]] || exit "$code"
    if ((MAX_JOBS <= 1)); then
        echo "The run is saved but not done, and no job is left in the chain (MAX_JOBS): submit the same again to go on."
        exit "$code"
    fi
    local start="${SLURM_JOB_START_TIME:-0}" end="${SLURM_JOB_END_TIME:-0}" now
    now="$(date +%s)"
    if ((2 * (now - start) < end - start)); then
        echo "This job was asked to leave $((now - start)) s after its start, of the $((end - start)) s it had: if nobody else did," \
            "its notice (--signal) is longer than a job should spend on it; give it more time (--time)."
    fi
    local limit features shared excluded gres script
    # By tabs: the bar stands for "or" among features. Two tabs in a row would count as one.
    IFS=$'\t' read -r limit features shared excluded gres script <<< \
        "$(asked_again squeue --noheader --job="$job" --format=$'%l\t%f\t%h\t%x.\t%b\t%o')"
    # What --gpus-per-node asked for stands before what --gres did, as in gres/gpu:8,gres/nvme:1; it was gres:gpu:8 once.
    gres="${gres//gres[\/:]/}"
    if [[ -n "${SLURM_GPUS_PER_NODE:-}" ]]; then
        gres="${gres#"gpu:$SLURM_GPUS_PER_NODE"}"
        gres="${gres#,}"
    fi
    # The file that was submitted, whatever its name; where Slurm does not tell, its copy of it, which runs here.
    [[ -r "$script" ]] || script="$0"
    # What this job was given, by options that went before those in the script. All variables go on to the next one, on a site
    # that otherwise sends none (SBATCH_EXPORT=NONE) too: they say what is run.
    local options=(--export=ALL --dependency="afterany:$job" --nodes="$SLURM_JOB_NUM_NODES" --time="$limit"
        --partition="$SLURM_JOB_PARTITION" --job-name="$SLURM_JOB_NAME"
        ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"} ${SLURM_JOB_QOS:+--qos="$SLURM_JOB_QOS"}
        ${SLURM_JOB_RESERVATION:+--reservation="$SLURM_JOB_RESERVATION"}
        ${SLURM_NTASKS:+--ntasks="$SLURM_NTASKS"} ${SLURM_NTASKS_PER_NODE:+--ntasks-per-node="$SLURM_NTASKS_PER_NODE"}
        ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}
        ${SLURM_GPUS_PER_NODE:+--gpus-per-node="$SLURM_GPUS_PER_NODE"} ${SLURM_GPUS:+--gpus="$SLURM_GPUS"}
        ${SLURM_MEM_PER_NODE:+--mem="$SLURM_MEM_PER_NODE"} ${SLURM_MEM_PER_CPU:+--mem-per-cpu="$SLURM_MEM_PER_CPU"}
        ${SLURM_MEM_PER_GPU:+--mem-per-gpu="$SLURM_MEM_PER_GPU"}
        ${signal:+--signal="${signal#--signal?}"})
    [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]] || options+=(--array="$SLURM_ARRAY_TASK_ID")
    [[ "${features:-(null)}" == "(null)" ]] || options+=(--constraint="$features")
    [[ "${gres:-N/A}" == "N/A" ]] || options+=(--gres="$gres")
    [[ -z "${excluded%.}" || "${excluded%.}" == "(null)" ]] || options+=(--exclude="${excluded%.}")
    [[ "$shared" != NO ]] || options+=(--exclusive)
    local tried=''
    # shellcheck disable=SC2329 # called below
    submit_next() {
        [[ -z "$tried" ]] || ! is_queued || return 0
        tried=1
        MAX_JOBS=$((MAX_JOBS - 1)) sbatch "${options[@]}" "$script" "$@"
    }
    asked_again submit_next "$@" && exit 0
    echo "The run is saved but not done, and Slurm took no next job: submit the same again to go on."
    exit "$code"
}
