#!/usr/bin/env bash
# Fill .wheels/ in this folder with the packages that are missing on a machine with Python 3.12, torch 2.11,
# transformers 5.17, accelerate and peft, but no network. Run it with any Python on a machine where pip works:
# PYTHON=.venv/bin/python bash scripts/gpu/wheels.sh [FOLDER]
#
# wandb is left out, since a run imports it only if logging.wandb.mode is not disabled, and so is bitsandbytes (60 MiB),
# which only 4-bit weights and 8-bit AdamW need. transformers 5.23 has the requirements of 5.17, except for a newer
# huggingface-hub.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
wheels=${1:-$here/.wheels}
most=60 # MiB, including the checkout

pinned() { # NAME…: print the pinned versions in constraints.txt
  local name
  for name; do grep -x "$name==.*" "$root/constraints.txt" || { echo "constraints.txt has no $name" >&2; return 1; }; done
}
carried=$(pinned transformers trl datasets dill multiprocess hydra-core omegaconf pydantic pydantic-core \
  annotated-types typing-extensions typing-inspection qwen-vl-utils liger-kernel hjson av)
from_source=$(pinned antlr4-python3-runtime deepspeed)
# The newest version that works with the httpx of transformers 5.17. Versions from 2.0 on need five more packages.
carried="$carried huggingface-hub<2"

rm -rf "$wheels" && mkdir -p "$wheels"
# pip matches glibc versions exactly.
platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 17 24 27 28 31 34 35)
# shellcheck disable=SC2086
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  $platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$wheels" $carried
# Both are pure Python. Otherwise deepspeed would look for a GPU and a compiler when its wheel is built.
# shellcheck disable=SC2086
DS_BUILD_OPS=0 DS_ACCELERATOR=cpu DS_BUILD_STRING=" " "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" $from_source
for wheel in "$wheels"/*.whl; do
  case $wheel in
    *-none-any.whl | *-manylinux*_x86_64.whl) ;;
    *) echo "made for this machine alone: $wheel" >&2; exit 1 ;;
  esac
done
"$python" "$here/repack.py" "$wheels"/av-*.whl
git -C "$root" describe --always --dirty --abbrev=40 --exclude='*' > "$wheels/commit"

of_wheels=$(cat "$wheels"/*.whl | wc -c)
of_checkout=$(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cat | wc -c)
du --apparent-size --human-readable "$wheels"/*.whl | sort --human-numeric-sort
echo "$((of_wheels >> 20)) MiB of wheels, with the checkout $(((of_wheels + of_checkout) >> 20)) MiB"
(((of_wheels + of_checkout) >> 20 < most)) || { echo "more than $most MiB" >&2; exit 1; }
