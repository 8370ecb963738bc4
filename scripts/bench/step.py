"""Measure training steps beside others', of random weights on drawn pictures of mixed sizes; nothing is downloaded:
python scripts/bench/step.py [--model qwen2_5_vl_3b] [--lora] [--output step.json] [key=value …]

First one optimizer step at a time, with its inputs ready on the device: transformers' model on padded batches, and
our packed forward pass. Then whole runs from files, data wait inside the clock: TRL's own trainer, and ours. Every way
takes the same samples, as many of them in each step, with the same weights, precision and checkpoints, and must come to
the same loss. All take turns in one process, so that what else the computer does meets them alike: the ratios mean more
than the rates. Without a GPU, one core does it all. key=value changes any setting of the run, such as
train.checkpointing=llm.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import command
import numpy as np
import results
import step_runs
import step_ways
from job import Job, Trained
from rich.console import Console
from rich.table import Table
from step_turns import check_equal, measure_steps
from turns import Taken, free, measure_runs
from workload import ANSWERS

from qwenvl_train.batch import Contents
from qwenvl_train.model.components import component_table
from qwenvl_train.training.devices import peak_tflops

WORDS = {
    "padded_sdpa": "padded, sdpa",
    "padded_flash": "padded, flash-attn",
    "packed": "ours, packed",
    "trl": "TRL's trainer",
    "ours": "our trainer",
}


def figures(
    job: Job, contents: list[Contents], taken: Taken, ours: Taken, padded_to: int, peak_tflops: float | None
) -> dict[str, Any]:
    """`contents` are those of the micro-batches within the time that was taken."""
    seconds = statistics.median(taken.seconds)
    tokens = sum(sum(micro_batch.lengths) for micro_batch in contents)
    tflops = job.flops(contents) / seconds / 1e12
    return {
        "samples_per_second": _short(sum(len(micro_batch.lengths) for micro_batch in contents) / seconds),
        "tokens_per_second": _short(tokens / seconds),
        "tflops": _short(tflops),
        "mfu": _short(tflops / peak_tflops) if peak_tflops else None,
        "peak_memory_gib": round(taken.peak_bytes / 2**30, 2) if taken.peak_bytes else None,
        "padding": _short(1 - tokens / padded_to),
        "data_wait": _short(statistics.median(np.divide(taken.waited, taken.seconds))) if taken.waited else None,
        "loss": taken.first["loss"],
        "ours_is_times": round(statistics.median(np.divide(taken.seconds, ours.seconds)), 2),
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def measure(job: Job, rounds: int, folder: Path, peak_tflops: float | None) -> dict[str, Any]:
    trained = Trained(job)
    steps, laid_out, skipped = measure_steps(job, trained, rounds)
    trl_learns = step_ways.trl_learns(job, trained) if "padded_sdpa" in steps else None
    free(job)

    ways = {"trl": step_runs.trl, "ours": step_runs.ours}
    runs, too_large = measure_runs(
        job, {name: partial(way, job, trained, folder) for name, way in ways.items()}, rounds
    )
    check_equal(job, steps, runs, trl_learns)
    accumulation = job.config.train.accumulation
    real = [sum(contents.lengths) for contents in job.contents]
    padded = laid_out["padded_sdpa"]
    later = job.contents[accumulation:]
    lengths = [length for contents in job.contents for length in contents.lengths]
    return {
        "job": {
            "model": job.model,
            "recipe": job.recipe,
            "parameters": sum(row.parameters for row in component_table(trained.model, job.family, job.config)),
            "precision": job.precision,
            "checkpointing": job.config.train.checkpointing,
            "samples": len(lengths),
            "batch_size": job.config.train.batch_size,
            "accumulation": accumulation,
            "workers": job.config.data.workers,
            "rounds": rounds,
            "sample_tokens": {
                "shortest": min(lengths),
                "median": round(statistics.median(lengths)),
                "longest": max(lengths),
                "visual": _short(sum(int(row.batch["places"].numel()) for row in job.rows) / sum(lengths)),
                "supervised": _short(sum(contents.supervised for contents in job.contents) / sum(lengths)),
            },
            "tflop_per_sample": _short(job.flops(job.contents) / len(lengths) / 1e12),
            "peak_tflops": peak_tflops,
        },
        "steps": {
            name: figures(job, job.contents, taken, steps["packed"], sum(laid_out[name]), peak_tflops)
            for name, taken in steps.items()
        },
        "runs": {
            name: figures(
                job, later, taken, runs["ours"], sum((padded if name == "trl" else real)[accumulation:]), peak_tflops
            )
            for name, taken in runs.items()
        },
        "skipped": skipped | too_large,
    }


COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "samples_per_second": ("samples/s", "{:g}".format),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "tflops": ("TFLOP/s", "{:g}".format),
    "mfu": ("MFU", "{:.0%}".format),
    "peak_memory_gib": ("GiB", "{:g}".format),
    "padding": ("pad", "{:.0%}".format),
    "data_wait": ("wait", "{:.0%}".format),
    "ours_is_times": ("ours is", "{:.2f}×".format),
}


def show(result: dict[str, Any]) -> None:
    job, console = result["job"], Console()
    for part, title in (("steps", "one step"), ("runs", "a whole run")):
        rows = result[part]
        known = {key: column for key, column in COLUMNS.items() if next(iter(rows.values()))[key] is not None}
        table = Table(title, *(words for words, _ in known.values()))
        for name, row in rows.items():
            table.add_row(WORDS[name], *(write(row[key]) for key, (_, write) in known.items()))
        console.print(table)
    for name, reason in result["skipped"].items():
        console.print(f"{WORDS[name]} was not measured: {reason}.")
    tokens = job["sample_tokens"]
    console.print(
        f"{job['model']}, {job['recipe']}, {job['precision']}: {job['samples']} samples of {tokens['shortest']} to "
        f"{tokens['longest']} tokens, {job['batch_size']} to a micro-batch."
    )


def main() -> None:
    parser = command.make_parser(__doc__, "samples", on_gpu=96, on_cpu=16)
    parser.add_argument("--lora", action="store_true", help="adapters on the language model, not all weights")
    parser.add_argument("--peak-tflops", type=float, help="what the device can do, for MFU where it is not known here")
    given = parser.parse_args()

    def measured(job: Job, folder: Path) -> dict[str, Any]:
        return measure(job, given.rounds, folder, given.peak_tflops or peak_tflops(job.precision))

    result = command.run(given, "sft_lora" if given.lora else "sft_full", ANSWERS, measured)
    show(result)
    results.write(result, given.output)


if __name__ == "__main__":
    main()
