#!/usr/bin/env bash
# Trains on all GPUs of one host.
#
#   bash scripts/launch/one_host.sh +recipe=sft_lora model=qwen2_5_vl_7b data.train=my.jsonl
#
# GPUS is the number of processes (default: the number of GPUs), and PORT a free port of this host (29500).
set -euo pipefail
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # torchrun would set it, too, and warn
# Schedulers may send SIGUSR1, which would otherwise kill torchrun.
export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}

exec torchrun --nproc_per_node="$gpus" --master_port="${PORT:-29500}" -m qwenvl_train "$@"
