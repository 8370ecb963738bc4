"""What a verb has not imported yet when it prints its first line; a benchmark tells the time."""

import json
import subprocess
import sys

LATER = {
    "accelerate", "av", "bitsandbytes", "datasets", "deepspeed", "liger_kernel", "pandas", "peft", "sympy",
    "torch._dynamo", "torch._inductor", "torchvision", "transformers.modeling_utils", "triton", "trl", "wandb",
}  # fmt: skip
# A launcher's group of processes is joined by accelerate.
ALLOWED = {"inspect": set(), "plan": set(), "chat": set(), "train": {"accelerate"}}
# Each verb ends at its first line, so that what comes after it takes no time; the process is new to all of them.
CODE = """
import json, sys
from qwenvl_train.cli import main

class Ended(BaseException):
    pass

class FirstLine:
    def write(self, text):
        if text.strip():
            told.append([verb, text, [name for name in LATER if name in sys.modules]])
            raise Ended
    def flush(self): pass
    def isatty(self): return False

told, stdout, sys.stdout = [], sys.stdout, FirstLine()
for verb in ("inspect", "plan", "chat", "train"):
    try:
        main([verb, "+recipe=sft_lora", WHERE])
    except Ended:
        pass
print(json.dumps(told), file=stdout)
"""


def test_the_first_line_comes_before_what_takes_long_to_load(tmp_path):
    code = f"LATER, WHERE = {sorted(LATER)!r}, {f'output_dir={tmp_path}'!r}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [verb for verb, *_ in told] == list(ALLOWED)
    for verb, line, loaded in told:
        assert line.startswith("Qwen2.5-VL from ")
        assert set(loaded) <= ALLOWED[verb], verb
