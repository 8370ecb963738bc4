"""Measure training steps against others', with random weights on drawn images of mixed sizes. Nothing is downloaded:
python scripts/bench/step.py [--model qwen2_5_vl_3b] [--lora] [--output step.json] [key=value …]

First it times single optimizer steps with inputs on the device: transformers' model on padded batches, and this
project's packed forward pass. Then it times whole runs from files, including the wait for data: TRL's trainer, and this
project. Every way uses the same samples, samples per step, weights, precision and activation checkpointing, and must
give the same loss. All ways run alternately in one process, so that other load on the computer affects them alike; the
ratios are therefore more reliable than the rates. Without a GPU, everything runs on one core. key=value changes any
setting of the run, such as train.checkpointing=llm.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from functools import partial
from pathlib import Path
from typing import Any

import command
import results
import step_runs
import step_ways
from figures import Tokens, figures, of_job, show
from job import Job, Trained
from step_turns import check_equal, measure_steps
from turns import Taken, free, measure_runs
from workload import ANSWERS

from qwenvl_train.model.components import component_table

WORDS = {
    "padded_sdpa": "padded, sdpa",
    "padded_flash": "padded, flash-attn",
    "packed": "ours, packed",
    "trl": "TRL's trainer",
    "ours": "our trainer",
}


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
    real = [sum(contents.lengths) for contents in job.contents]
    padded = laid_out["padded_sdpa"]

    def told(taken: Taken, ours: Taken, micro_batches: range, laid_out: list[int]) -> dict[str, Any]:
        contents = [job.contents[index] for index in micro_batches]
        tokens = Tokens(sum(real[index] for index in micro_batches), sum(laid_out[index] for index in micro_batches))
        return figures(job, contents, tokens, taken, ours, peak_tflops) | {"loss": taken.first["loss"]}

    parameters = sum(row.parameters for row in component_table(trained.model, job.family, job.config))
    return {
        "job": of_job(job, rounds, peak_tflops) | {"parameters": parameters},
        "steps": {
            name: told(taken, steps["packed"], range(job.micro_batches), laid_out[name])
            for name, taken in steps.items()
        },
        "runs": {
            name: told(taken, runs["ours"], job.timed, padded if name == "trl" else real)
            for name, taken in runs.items()
        },
        "skipped": skipped | too_large,
    }


def main() -> None:
    parser = command.make_parser(__doc__, ANSWERS, on_gpu=96, on_cpu=16)
    parser.add_argument("--lora", action="store_true", help="adapters on the language model, not all weights")
    given = parser.parse_args()
    result = command.run(given, "sft_lora" if given.lora else "sft_full", ANSWERS, measure)
    show(result, {"steps": "one step", "runs": "a whole run"}, WORDS, ANSWERS.unit)
    results.write(result, given.output)


if __name__ == "__main__":
    main()
