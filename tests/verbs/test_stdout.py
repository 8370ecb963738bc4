"""With output=json, stdout holds JSON alone, whatever libraries print."""

import json
import os
import subprocess
import sys

from tests.conftest import conversation

LATER = {"trl", "peft", "deepspeed", "wandb", "bitsandbytes"}


def test_json_is_alone_on_stdout_whatever_libraries_print(checkpoints, write_rows, tmp_path):
    """transformers tells on stdout that Weights & Biases is offline. What only training needs is not imported by
    `inspect`, which goes first in the process that both share."""
    data = write_rows([conversation(("user", ["What?"]), ("assistant", ["Red."]), id=str(n)) for n in range(40)])
    where = ["output=json", f"output_dir={tmp_path}"]
    inspect = ["inspect", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", *where]
    code = f"""
import sys
from qwenvl_train.cli import main
assert main({inspect!r}) == 0
print(*{LATER!r} & set(sys.modules), file=sys.stderr)
assert main({["plan", "+recipe=sft_lora", *where]!r}) == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Nothing on stderr before the line of what was imported, nor in it.
    assert done.stderr.startswith("\n")
    *inspected, planned = map(json.loads, done.stdout.splitlines())
    ids = [int(row["id"]) for row in inspected]
    assert ids == sorted(set(ids))
    assert len(ids) == 5
    assert planned["steps"] > 0
