"""What a verb has not imported yet when it prints its first line; a benchmark tells the time."""

import json
import subprocess
import sys

import pytest

LATER = {
    "accelerate", "av", "bitsandbytes", "datasets", "deepspeed", "liger_kernel", "pandas", "peft", "sympy",
    "torch._dynamo", "torch._inductor", "torchvision", "transformers.modeling_utils", "triton", "trl", "wandb",
}  # fmt: skip
WORDS = {
    "inspect": ["inspect"],
    "plan": ["plan", "+recipe=sft_lora"],
    "train": ["+recipe=sft_lora"],
}
# Ends at the first line, so that what comes after it takes no time.
CODE = """
import json, os, sys
from qwenvl_train.cli import main

class FirstLine:
    def write(self, text):
        if text.strip():
            os.write(1, json.dumps([text, [name for name in LATER if name in sys.modules]]).encode())
            os._exit(0)
    def flush(self): pass
    def isatty(self): return False

sys.stdout = FirstLine()
main(WORDS)
"""


@pytest.mark.parametrize("verb", WORDS)
def test_the_first_line_comes_before_what_takes_long_to_load(verb, tmp_path):
    # A launcher's group of processes is joined by accelerate.
    later = LATER - ({"accelerate"} if verb == "train" else set())
    code = f"LATER, WORDS = {sorted(later)!r}, {[*WORDS[verb], f'output_dir={tmp_path}']!r}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, loaded = json.loads(done.stdout)
    assert line.startswith("Qwen2.5-VL from ")
    assert loaded == []
