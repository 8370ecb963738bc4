"""Measure how long training waits for checkpoints, and how long they are published beside it:
python scripts/bench/saving.py [--hidden 1024] [--layers 8] [--saves 4] [--folder /data/tmp] [--output saving.json]

A Qwen2.5-VL of random weights is trained in full on the built-in drawings. Training waits while the files are written.
Their checksums and syncing, and the deletion of the checkpoint before, take place in a thread beside it. The time that
the next steps take longer because of that is the difference between the steps after a save and the others.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import itertools

import results
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from qwenvl_train.cli import main as qwenvl_train
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.step_folders import saved
from qwenvl_train.training import checkpoint
from qwenvl_train.training.disk_space import size_of

STEPS = 4
"""Steps from one checkpoint to the next."""
PACKAGES = ("torch", "transformers", "safetensors")


def make_model(folder: Path, hidden: int, layers: int) -> int:
    """Write a wider and deeper form of the tiny model, and return the number of its parameters."""
    tiny = asset_dir("data") / "tiny"
    config = AutoConfig.from_pretrained(tiny)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = hidden, 4 * hidden, layers
    text.num_attention_heads = text.num_key_value_heads = hidden // 64
    text.layer_types = [text.layer_types[0]] * layers
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    config.vision_config.out_hidden_size = hidden
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(folder: Path, hidden: int, layers: int, saves: int) -> dict[str, Any]:
    parameters = make_model(folder / "model", hidden, layers)
    beside: list[float] = []
    publish = checkpoint.publish

    def timed(*arguments: Any) -> Path:
        started = time.perf_counter()
        final = publish(*arguments)
        beside.append(time.perf_counter() - started)
        return final

    checkpoint.publish = timed
    arguments = [
        "+recipe=sft_full", f"model.path={folder / 'model'}", "train.precision=fp32", "train.accumulation=1",
        "data.packing=false", "train.log_steps=1",
        f"train.max_steps={STEPS * (saves + 1)}", f"train.save_steps={STEPS}", "train.keep=1", "data.eval=null",
        "logging.predictions=0", "logging.wandb.mode=disabled", f"output_dir={folder}", "run_name=run",
    ]  # fmt: skip
    if code := qwenvl_train(arguments):
        raise SystemExit(code)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    waits = [row["save_seconds"] for row in rows if "save_seconds" in row]
    # The speed leaves out the time that training waits.
    seconds = {
        row["step"]: (row["tokens"] - before["tokens"]) / row["tokens_per_second"]
        for before, row in itertools.pairwise(rows)
    }
    after = [seconds[step] for step in range(STEPS + 1, STEPS * saves + 2, STEPS)]
    others = [seconds[step] for step in seconds if step % STEPS not in (0, 1)]
    return {
        "parameters": parameters,
        "checkpoint_gib": size_of(saved(folder / "run" / "checkpoints")[-1]) / 2**30,
        "waited_seconds": statistics.median(waits),
        "beside_seconds": statistics.median(beside),
        "step_seconds": statistics.median(others),
        "step_after_save_seconds": statistics.median(after),
        "saves": saves,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to be measured")
    results.add_output(parser)
    given = parser.parse_args()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.hidden, given.layers, given.saves)
    for name, value in found.items():
        print(f"{name:26}{value:,.2f}" if isinstance(value, float) else f"{name:26}{value:,}")
    gpus = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    results.write(results.surroundings(PACKAGES, ("cpu", "cores", "memory_gib", "gpus"), gpus) | found, given.output)


if __name__ == "__main__":
    main()
