"""Measure DPO against TRL's, with random weights on drawn images of mixed sizes. Nothing is downloaded:
python scripts/bench/dpo.py [--model qwen2_5_vl_3b] [--full] [--output dpo.json] [key=value …]

The benchmark times whole runs from files, including the wait for data: TRL's DPOTrainer with its own collator, padding,
activation checkpointing and sdpa; this project, where a packed row contains a pair's question and images once; and this
project with the two conversations of a pair computed separately. It trains adapters with the model without them as the
reference, or with --full all weights of the language model with a copy as the reference. Every way uses the same pairs,
pairs per step, weights and precision, and must give the same log-probabilities, loss and gradient. All ways run
alternately in one process, so that other load on the computer affects them alike; the ratios are therefore more
reliable than the rates. Without a GPU, everything runs on one core, and memory is not measured. key=value changes any
setting of the run, such as train.checkpointing=none.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from functools import partial
from pathlib import Path
from typing import Any

import command
import dpo_runs
import results
from figures import figures, of_job, short, show
from job import Job
from turns import ROUNDING, Taken, measure_runs
from workload import PAIRS

WORDS = {"trl": "TRL's trainer", "ours": "our trainer", "apart": "nothing shared"}

EQUAL = {"logps/chosen": 1, "logps/rejected": 1, "loss": 10, "grad_norm": 10}
"""The metrics that must agree in the first step, and the allowed difference as a multiple of the rounding error of one
log-probability. A margin is a small difference of large sums."""


def measure(job: Job, rounds: int, folder: Path, peak_tflops: float | None) -> dict[str, Any]:
    if job.config.dpo.reference != "auto":
        raise SystemExit("TRL's trainer chooses its reference itself; leave dpo.reference out.")
    ways = {"trl": dpo_runs.trl, "ours": dpo_runs.ours, "apart": dpo_runs.apart}
    tokens = {
        "trl": dpo_runs.padded_tokens(job),
        "ours": dpo_runs.shared_tokens(job),
        "apart": dpo_runs.apart_tokens(job),
    }
    runs, skipped = measure_runs(job, {name: partial(way, job, folder) for name, way in ways.items()}, rounds)
    contents = [job.contents[index] for index in job.timed]

    def told(name: str, taken: Taken) -> dict[str, Any]:
        first, expected = taken.first, runs["ours"].first
        return figures(job, contents, tokens[name], taken, runs["ours"], peak_tflops) | {
            "tokens_per_pair": round(tokens[name].real / sum(len(one.lengths) for one in contents)),
            "first_step": {what: first[what] for what in (*EQUAL, "rewards/margins")},
            "differs": {what: short(abs(first[what] / expected[what] - 1)) for what in EQUAL},
        }

    return {
        "job": of_job(job, rounds, peak_tflops),
        "runs": {name: told(name, taken) for name, taken in runs.items()},
        "skipped": skipped,
    }


def check_equal(result: dict[str, Any]) -> None:
    """Check that all ways give equal results, since a way that computes something else proves nothing."""
    rounding = ROUNDING[result["job"]["precision"]]
    for name, row in result["runs"].items():
        for what, times in EQUAL.items():
            if not row["differs"][what] <= times * rounding:
                raise SystemExit(
                    f"{WORDS[name]} computes something else: {what} differs by {row['differs'][what]:.1e}."
                )


def main() -> None:
    parser = command.make_parser(__doc__, PAIRS, on_gpu=48, on_cpu=12)
    parser.add_argument("--full", action="store_true", help="all weights of the language model, not adapters")
    given = parser.parse_args()
    result = command.run(given, "dpo_full" if given.full else "dpo_lora", PAIRS, measure)
    show(result, {"runs": "a whole run"}, WORDS, PAIRS.unit)
    results.write(result, given.output)
    check_equal(result)


if __name__ == "__main__":
    main()
