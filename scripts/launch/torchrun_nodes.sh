#!/usr/bin/env bash
# Trains on several hosts, on each of which this script is started with the same arguments.
#
#   NODES=2 MASTER=node1 bash scripts/launch/torchrun_nodes.sh +recipe=sft_lora model=qwen2_5_vl_7b data.train=my.jsonl
#
# MASTER is the address at which the others reach the first host, and PORT a free port there (29500). GPUS is the number
# of processes on each host (default: the number of its GPUs). With NODE_RANK=0 on the first host, 1 on the next and so on,
# the ranks are fixed. Without it, the hosts agree on them, and ID (default: qwenvl) tells jobs apart.
set -euo pipefail
nodes=${NODES:?is the number of hosts}
master=${MASTER:?is the address of the first host}
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
port=${PORT:-29500}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # torchrun would set it, too, and warn
# Schedulers may send SIGUSR1, which would otherwise kill torchrun.
export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}

if [ -n "${NODE_RANK:-}" ]; then
    meeting=(--node_rank="$NODE_RANK" --master_addr="$master" --master_port="$port")
else
    meeting=(--rdzv_backend=c10d --rdzv_endpoint="$master:$port" --rdzv_id="${ID:-qwenvl}")
fi
exec torchrun --nnodes="$nodes" --nproc_per_node="$gpus" "${meeting[@]}" -m qwenvl_train "$@"
