"""The results of each way, as numbers and as a table on the terminal."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from job import Job
from rich.console import Console
from rich.table import Table
from turns import Taken

from qwenvl_train.batch import Contents


@dataclass(frozen=True)
class Tokens:
    real: int
    laid_out: int
    """The number of tokens with padding."""


def figures(
    job: Job, contents: list[Contents], tokens: Tokens, taken: Taken, ours: Taken, peak_tflops: float | None
) -> dict[str, Any]:
    """Return the figures of a way. `contents` and `tokens` are of the micro-batches within the measured time."""
    seconds = statistics.median(taken.seconds)
    tflops = job.flops(contents) / seconds / 1e12
    return {
        f"{job.workload.unit}_per_second": short(sum(len(micro_batch.lengths) for micro_batch in contents) / seconds),
        "tokens_per_second": short(tokens.real / seconds),
        "tflops": short(tflops),
        "mfu": short(tflops / peak_tflops) if peak_tflops else None,
        "peak_memory_gib": round(taken.peak_bytes / 2**30, 2) if taken.peak_bytes else None,
        "padding": short(1 - tokens.real / tokens.laid_out),
        "data_wait": short(statistics.median(np.divide(taken.waited, taken.seconds))) if taken.waited else None,
        "ours_is_times": round(statistics.median(np.divide(taken.seconds, ours.seconds)), 2),
    }


def of_job(job: Job, rounds: int, peak_tflops: float | None) -> dict[str, Any]:
    lengths = [length for contents in job.contents for length in contents.lengths]
    return {
        "model": job.model,
        "recipe": job.recipe,
        "precision": job.precision,
        "checkpointing": job.config.train.checkpointing,
        job.workload.unit: len(lengths),
        "batch_size": job.config.train.batch_size,
        "accumulation": job.config.train.accumulation,
        "workers": job.config.data.workers,
        "rounds": rounds,
        "sample_tokens": {
            "shortest": min(lengths),
            "median": round(statistics.median(lengths)),
            "longest": max(lengths),
            "visual": short(sum(int(row.batch["placeholder_positions"].numel()) for row in job.rows) / sum(lengths)),
            "supervised": short(sum(contents.supervised for contents in job.contents) / sum(lengths)),
        },
        "tflop_per_sample": short(job.flops(job.contents) / len(lengths) / 1e12),
        "peak_tflops": peak_tflops,
    }


def short(value: float) -> float:
    return float(f"{value:.3g}")


_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "samples_per_second": ("samples/s", "{:g}".format),
    "pairs_per_second": ("pairs/s", "{:g}".format),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "tflops": ("TFLOP/s", "{:g}".format),
    "mfu": ("MFU", "{:.0%}".format),
    "peak_memory_gib": ("GiB", "{:g}".format),
    "padding": ("pad", "{:.0%}".format),
    "data_wait": ("wait", "{:.0%}".format),
    "ours_is_times": ("ours is", "{:.2f}×".format),
}


def show(result: dict[str, Any], titles: dict[str, str], words: dict[str, str], unit: str) -> None:
    """Print the table. `titles` are those of its parts, and `words` describe the ways."""
    console = Console()
    for part, title in titles.items():
        rows = result[part]
        first = next(iter(rows.values()))
        known = {key: column for key, column in _COLUMNS.items() if first.get(key) is not None}
        table = Table(title, *(heading for heading, _ in known.values()))
        for name, row in rows.items():
            table.add_row(words[name], *(write(row[key]) for key, (_, write) in known.items()))
        console.print(table)
    for name, reason in result["skipped"].items():
        console.print(f"{words[name]} was not measured: {reason}.")
    job, tokens = result["job"], result["job"]["sample_tokens"]
    console.print(
        f"{job['model']}, {job['recipe']}, {job['precision']}: {job[unit]} {unit} of {tokens['shortest']} to "
        f"{tokens['longest']} tokens, {tokens['visual']:.0%} of them visual, {job['batch_size']} to a micro-batch."
    )
