#!/usr/bin/env bash
# Pretrain on this machine: one process for each GPU, or one on the CPU; --resume goes on where an earlier run stopped.
#   launch/local.sh launch/runs/demo.yaml [--set train.steps=200 ...]
set -euo pipefail

RANKS="${RANKS:-}"                                        # processes; empty: as many as there are GPUs, at least one
DEEPSPEED_CONFIG="${DEEPSPEED_CONFIG:-ds_configs/zero1.json}" # how DeepSpeed runs it, see ds_configs/

config="${1:?usage: launch/local.sh RUN.yaml [more arguments of launch/pretrain.py]}"
shift
if [[ -z "$RANKS" ]]; then
    RANKS="$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')"
fi
if ! [[ "$RANKS" =~ ^[1-9][0-9]{0,3}$ ]]; then
    echo "local.sh: RANKS is the number of processes, such as 2, got '$RANKS'" >&2
    exit 2
fi
arguments=("$(dirname "$0")/pretrain.py" --deepspeed_config "$DEEPSPEED_CONFIG" --config "$config" --resume "$@")
if [[ "$RANKS" == 1 ]]; then
    exec python "${arguments[@]}"
fi
exec torchrun --standalone --nproc_per_node "$RANKS" "${arguments[@]}"
