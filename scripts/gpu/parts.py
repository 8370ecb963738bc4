"""Run the parts of the GPU kit one after the other, each in its own process and with its own time limit.

    python scripts/gpu/parts.py FOLDER [--tiny] [--seconds N] [PART …]

Each part writes NAME.json, with a common header, to FOLDER; log.txt contains all output. A part that fails or exceeds
its time does not affect the other parts. Libraries are loaded once before the processes are forked, which saves about
ten seconds for each part. If a forked process cannot use the GPU, new processes are started instead.
"""

import argparse
import json
import os
import runpy
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

from header import header

from qwenvl_train.reporting.folder import write_json_atomic

ROOT = Path(__file__).resolve().parents[2]
STARTED = time.monotonic()
LEAST = 15
"""The shortest time limit with which a part is started, in seconds."""
SHOWN = 40
"""The number of lines that are printed of the output of a part."""
TINY = 240
"""The time limit of each part on a CPU, in seconds. The first run of DeepSpeed compiles for two minutes there."""
ZERO2 = ("+recipe=sft_full", "deepspeed=zero2", "data.eval=null")
STOPPED = 124
"""The exit code of a part that exceeded its time limit. It is that of the command timeout."""


@dataclass(frozen=True)
class Part:
    name: str
    seconds: int
    """The time limit."""
    script: str
    """The path of the script, relative to scripts/."""
    words: tuple[str, ...] = ()


def gpu_parts() -> list[Part]:
    """Return the parts for a GPU. According to `qwenvl-train plan`, the sizes fit 80 GB: LoRA takes 57 GiB on rows of
    up to 10,388 tokens without activation checkpointing, and full training takes 69 GiB with it. TRL gets shorter rows,
    since it pads them and computes all logits."""
    none, again = "train.checkpointing=none", "train.checkpointing=all"
    model = ("--model", "qwen2_5_vl_3b", "--rounds", "1")
    rows = (*model, "--samples", "36", "--batch-size", "9")
    lora = {"kept": none, "all": again, "liger": f"{none},train.liger=true", "sdpa": f"{none},train.attention=sdpa"}
    full = {"all": again, "liger": f"{again},train.liger=true", "llm": "train.checkpointing=llm"}
    compiled = {"kept": none, "compiled": f"{none},train.compile=true"}
    beside_sft = ("--lora", *model, "--samples", "32", "--batch-size", "4", none)
    beside_dpo = (*model, "--pairs", "24", "--batch-size", "2", none, "model.max_pixels=501760")
    return [
        Part("tests", 90, "gpu/gpu_tests.py", marked_tests()),
        Part("kernels", 45, "gpu/attention_kernels.py"),
        Part("packed", 60, "gpu/packed.py"),
        Part("command", 75, "gpu/train_run.py", ("+recipe=sft_lora", "train.max_steps=40", "data.workers=8")),
        variants("lora", 100, lora, ("--profile", "kept", *rows)),
        variants("full", 90, full, ("--profile", "all", "--recipe", "sft_full", *rows)),
        Part("trl", 100, "bench/step.py", beside_sft),
        variants("compile", 110, compiled, ("--profile", "compiled", *rows)),
        Part("zero2", 60, "gpu/train_run.py", (*ZERO2, "train.max_steps=10")),
        Part("dpo", 100, "bench/dpo.py", beside_dpo),
    ]


def tiny_parts() -> list[Part]:
    """Return the same parts with minimal sizes for one CPU core. MFU is relative to an invented peak, nothing is
    compiled, and Liger's kernels are not used."""
    none, again = "train.checkpointing=none", "train.checkpointing=all"
    tiny = ("--rounds", "1", "--batch-size", "2", "--peak-tflops", "1")
    settings = ("model.max_pixels=25088", "train.precision=fp32", none)
    rows = (*tiny, "--samples", "4", *settings)
    lora = {"kept": none, "all": again, "sdpa": f"{none},train.attention=sdpa"}
    full = {"all": again, "llm": "train.checkpointing=llm"}
    compiled = {"kept": none, "compiled": f"{none},train.compile=true"}
    return [
        Part("tests", TINY, "gpu/gpu_tests.py", marked_tests()),
        Part("kernels", TINY, "gpu/attention_kernels.py"),
        Part("packed", TINY, "gpu/packed.py", ("model.max_pixels=25088",)),
        Part("command", TINY, "gpu/train_run.py", ("+recipe=sft_lora", "train.max_steps=2", "logging.predictions=1")),
        variants("lora", TINY, lora, ("--profile", "kept", *rows)),
        variants("full", TINY, full, ("--profile", "all", "--recipe", "sft_full", *rows)),
        Part("trl", TINY, "bench/step.py", ("--lora", *rows)),
        variants("compile", TINY, compiled, ("--profile", "compiled", "--eager", *rows)),
        Part("zero2", TINY, "gpu/train_run.py", (*ZERO2, "train.max_steps=2")),
        Part("dpo", TINY, "bench/dpo.py", (*tiny, "--pairs", "4", *settings)),
    ]


def variants(name: str, seconds: int, ways: dict[str, str], words: tuple[str, ...]) -> Part:
    """Return a part that times several variants. No variant starts after four fifths of the time limit."""
    options = [word for way, settings in ways.items() for word in ("--way", f"{way}:{settings}")]
    return Part(name, seconds, "gpu/variants.py", (*options, "--until", str(seconds * 4 // 5), *words))


def marked_tests() -> tuple[str, ...]:
    """Return the files with tests for a GPU, so that pytest does not import the others."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(str(file) for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="as small as it gets, for a CPU")
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
    parser.add_argument("names", nargs="*", metavar="PART", help="only these")
    given = parser.parse_intermixed_args()
    parts = tiny_parts() if given.tiny else gpu_parts()
    if unknown := set(given.names) - {part.name for part in parts}:
        raise SystemExit(
            f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in parts)}."
        )
    given.folder.mkdir(parents=True, exist_ok=True)
    context = start_method()
    for part in parts:
        if not given.names or part.name in given.names:
            left = given.seconds - (time.monotonic() - STARTED)
            run(part, given.folder.resolve(), context, min(part.seconds, left))


def start_method() -> BaseContext:
    load_libraries()
    forked = get_context("fork")
    probe = forked.Process(target=use_gpu)
    probe.start()
    probe.join()
    print(f"libraries loaded after {time.monotonic() - STARTED:.0f} s", flush=True)
    if probe.exitcode == 0:
        return forked
    print("a forked process cannot use the GPU: each part loads its libraries itself", flush=True)
    return get_context("spawn")


def load_libraries() -> None:
    """Import the libraries that nearly every part needs. They must not initialize CUDA, or forked processes could not
    use the GPU."""
    import pytest  # noqa: F401
    import trl.trainer.dpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401

    import qwenvl_train.run.preparing  # noqa: F401


def use_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.ones(1, device="cuda").item()


def run(part: Part, folder: Path, context: BaseContext, seconds: float) -> None:
    result, log = folder / f"{part.name}.json", folder / "log.txt"
    if seconds < LEAST:
        print(f"=== {part.name}: no time left", flush=True)
        return
    print(f"=== {part.name}, after {time.monotonic() - STARTED:.0f} s, for up to {seconds:.0f} s", flush=True)
    result.unlink(missing_ok=True)
    before, began = log.stat().st_size if log.exists() else 0, time.monotonic()
    process = context.Process(target=work, args=(part, result, log))
    process.start()
    process.join(seconds)
    code = process.exitcode
    if code is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        code = STOPPED
    taken = time.monotonic() - began
    found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    write_json_atomic(result, {"header": header(part.name, code, taken)} | found)
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(before)
        print("\n".join(line[:260] for line in file.read().splitlines()[-SHOWN:]))
    print(f"=== {part.name}: exit code {code} after {taken:.0f} s", flush=True)


def work(part: Part, result: Path, log: Path) -> None:
    """Run the part. It runs in its own process and process group, so that its workers end with it."""
    os.setsid()
    sys.stdout = sys.stderr = log.open("a", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):  # also redirects output that does not go through Python
        os.dup2(sys.stdout.fileno(), descriptor)
    print(f"=== {part.name}")
    script = ROOT / "scripts" / part.script
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), "--output", str(result), *part.words]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
