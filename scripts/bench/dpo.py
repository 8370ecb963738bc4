"""Measure preference tuning beside TRL's, of random weights on drawn pictures of mixed sizes; nothing is downloaded:
python scripts/bench/dpo.py [--model qwen2_5_vl_3b] [--full] [--output dpo.json] [key=value …]

Whole runs from files, data wait inside the clock: TRL's DPOTrainer with its own collator, padding and checkpoints and
sdpa; ours, where a pair lies in a row with its question and its pictures once; and ours as if the two conversations
of a pair had nothing in common. Adapters are trained against the model without them, with --full all weights of the
language model against a copy. Every way takes the same pairs, as many of them in each step, with the same weights and
precision, and must come to the same log-probabilities, loss and gradient. All take turns in one process, so that what
else the computer does meets them alike: the ratios mean more than the rates. Without a GPU, one core does it all, and
the memory of each way is not measured. key=value changes any setting of the run, such as train.checkpointing=none.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import command
import dpo_runs
import numpy as np
import results
from dpo_runs import Tokens
from job import Job
from rich.console import Console
from rich.table import Table
from turns import ROUNDING, Taken, measure_runs
from workload import PAIRS

WORDS = {"trl": "TRL's DPOTrainer", "ours": "our trainer", "apart": "ours, nothing shared"}

EQUAL = {"logps/chosen": 1, "logps/rejected": 1, "loss": 10, "grad_norm": 10}
"""What all ways must agree on in the first step, and how many times the rounding of one log-probability it may be
apart: a margin is a small difference of large sums."""


def figures(job: Job, taken: Taken, tokens: Tokens, ours: Taken) -> dict[str, Any]:
    seconds = statistics.median(taken.seconds)
    pairs = (job.steps - 1) * job.per_step
    return {
        "pairs_per_second": _short(pairs / seconds),
        "tokens_per_second": _short(tokens.real / seconds),
        "tokens_per_pair": round(tokens.real / pairs),
        "padding": _short(1 - tokens.real / tokens.laid_out),
        "peak_memory_gib": round(taken.peak_bytes / 2**30, 2) if taken.peak_bytes else None,
        "data_wait": _short(statistics.median(np.divide(taken.waited, taken.seconds))),
        "first_step": {name: taken.first[name] for name in (*EQUAL, "rewards/margins")},
        "differs": {name: _short(_apart(taken.first[name], ours.first[name])) for name in EQUAL},
        "ours_is_times": round(statistics.median(np.divide(taken.seconds, ours.seconds)), 2),
    }


def _apart(value: float, expected: float) -> float:
    return abs(value - expected) / abs(expected)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def measure(job: Job, rounds: int, folder: Path) -> dict[str, Any]:
    ways = {"trl": dpo_runs.trl, "ours": dpo_runs.ours, "apart": dpo_runs.apart}
    tokens = {"trl": dpo_runs.padded_tokens(job), "ours": dpo_runs.tokens(job), "apart": dpo_runs.tokens_apart(job)}
    taken, skipped = measure_runs(job, {name: partial(way, job, folder) for name, way in ways.items()}, rounds)
    lengths = [length for contents in job.contents for length in contents.lengths]
    return {
        "job": {
            "model": job.model,
            "recipe": job.recipe,
            "precision": job.precision,
            "checkpointing": job.config.train.checkpointing,
            "pairs": len(lengths),
            "batch_size": job.config.train.batch_size,
            "accumulation": job.config.train.accumulation,
            "workers": job.config.data.workers,
            "rounds": rounds,
            "pair_tokens": {
                "shortest": min(lengths),
                "median": round(statistics.median(lengths)),
                "longest": max(lengths),
                "visual": _short(sum(int(row.batch["places"].numel()) for row in job.rows) / sum(lengths)),
                "supervised": _short(sum(contents.supervised for contents in job.contents) / sum(lengths)),
            },
        },
        "runs": {name: figures(job, one, tokens[name], taken["ours"]) for name, one in taken.items()},
        "skipped": skipped,
    }


def check_equal(result: dict[str, Any]) -> None:
    """A way that is fast because it computes something else would prove nothing."""
    rounding = ROUNDING[result["job"]["precision"]]
    for name, row in result["runs"].items():
        for what, times in EQUAL.items():
            if not row["differs"][what] <= times * rounding:
                raise SystemExit(
                    f"{WORDS[name]} computes something else: {what} differs by {row['differs'][what]:.1e}."
                )


COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "pairs_per_second": ("pairs/s", "{:g}".format),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "tokens_per_pair": ("tokens", "{:,.0f}".format),
    "padding": ("pad", "{:.0%}".format),
    "peak_memory_gib": ("GiB", "{:g}".format),
    "data_wait": ("wait", "{:.0%}".format),
    "ours_is_times": ("ours is", "{:.2f}×".format),
}


def show(result: dict[str, Any]) -> None:
    job, rows, console = result["job"], result["runs"], Console()
    known = {key: column for key, column in COLUMNS.items() if rows["ours"][key] is not None}
    table = Table("a whole run", *(words for words, _ in known.values()))
    for name, row in rows.items():
        table.add_row(WORDS[name], *(write(row[key]) for key, (_, write) in known.items()))
    console.print(table)
    for name, reason in result["skipped"].items():
        console.print(f"{WORDS[name]} was not measured: {reason}.")
    tokens = job["pair_tokens"]
    console.print(
        f"{job['model']}, {job['recipe']}, {job['precision']}: {job['pairs']} pairs of {tokens['shortest']} to "
        f"{tokens['longest']} tokens, {tokens['visual']:.0%} of them visual, {job['batch_size']} to a micro-batch."
    )


def main() -> None:
    parser = command.make_parser(__doc__, "pairs", on_gpu=48, on_cpu=12)
    parser.add_argument("--full", action="store_true", help="all weights of the language model, not adapters")
    given = parser.parse_args()

    def measured(job: Job, folder: Path) -> dict[str, Any]:
        if job.config.dpo.reference != "auto":
            raise SystemExit("TRL's trainer chooses its reference itself; leave dpo.reference out.")
        return measure(job, given.rounds, folder)

    result = command.run(given, "dpo_full" if given.full else "dpo_lora", PAIRS, measured)
    show(result)
    results.write(result, given.output)
    check_equal(result)


if __name__ == "__main__":
    main()
