#!/usr/bin/env bash
# Trains on several hosts, which this script starts over SSH. Run it on the first one.
#
#   HOSTFILE=hosts bash scripts/launch/hostfile.sh +recipe=sft_full deepspeed=zero3 model=qwen3_vl_8b data.train=my.jsonl
#
# HOSTFILE has a line for each host, such as "node1 slots=8". MASTER is the address at which the others reach the first
# host (default: its name in HOSTFILE), and PORT a free port there (29500). Every host needs pdsh, and SSH without a
# password. Variables that the processes need are in .deepspeed_env in this folder, one NAME=value for each line; those
# whose names begin with NCCL or PYTHON are passed on without it.
set -euo pipefail
hostfile=${HOSTFILE:?names a file with a line for each host, such as: node1 slots=8}
master=${MASTER:-$(awk '!/^[[:space:]]*(#|$)/ {print $1; exit}' "$hostfile")}

# The check would only try SSH to the first host, which pdsh does, too.
exec deepspeed --hostfile="$hostfile" --master_addr="$master" --master_port="${PORT:-29500}" --no_ssh_check \
    --no_local_rank --module qwenvl_train "$@"
