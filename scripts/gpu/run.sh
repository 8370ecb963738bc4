#!/usr/bin/env bash
# Test the project on a GPU, measure its speed and profile it. See README.md in this folder.
#
#   bash scripts/gpu/run.sh [PART …]         SIZE=tiny runs on a CPU, with minimal sizes
#
# OUT is the folder for the results (default: .out in this folder). TOTAL is the time limit of the whole run in seconds.
# WHEELS is the folder that wheels.sh has filled (default: .wheels in this folder; not used with SIZE=tiny).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${OUT:-$here/.out}
size=${SIZE:-3b}
python=${PYTHON:-python3}
wheels=${WHEELS:-$([ "$size" = tiny ] || echo "$here/.wheels")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# A copy of the project may have no git history, so wheels.sh writes the commit to a file.
commit=$(git -C "$root" describe --always --dirty --abbrev=40 --exclude='*' 2> /dev/null || cat "$wheels/commit" 2> /dev/null)
export COMMIT=${COMMIT:-${commit:-unknown}}
# Checks for CUDA must not initialize it, so that processes forked afterwards can use it.
export PYTORCH_NVML_BASED_CUDA_CHECK=1
# qwenvl-train sets the same value.
export PYTORCH_ALLOC_CONF=expandable_segments:True
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore COLUMNS=120 TMPDIR=$work
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TRANSFORMERS_VERBOSITY=error
export TRITON_CACHE_DIR=$work/triton TORCHINDUCTOR_CACHE_DIR=$work/inductor

if ls "$wheels"/*.whl > /dev/null 2>&1; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --target "$work/site" "$wheels"/*.whl || exit
  export PYTHONPATH=$work/site
  # DeepSpeed checks the machine when it is imported. All parts but zero2 run without it.
  "$python" -c "import deepspeed" > "$work/deepspeed" 2>&1 || { tail -3 "$work/deepspeed"; rm -rf "$work"/site/deepspeed*; }
fi
export PYTHONPATH=$root:$root/scripts/bench${PYTHONPATH:+:$PYTHONPATH}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null || echo "no GPU"
echo "commit $COMMIT, installed after $SECONDS s"
cd "$root" || exit
case $size in
  tiny) "$python" "$here/parts.py" "$out" --tiny --seconds "${TOTAL:-1200}" "$@" ;;
  3b) "$python" "$here/parts.py" "$out" --seconds $(( ${TOTAL:-540} - SECONDS )) "$@" ;;
  *) echo "SIZE is 3b or tiny, not $size"; exit 2 ;;
esac || exit
"$python" "$here/report.py" "$out"
