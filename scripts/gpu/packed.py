"""Compare a packed row in bf16 with its samples computed separately, in tiny models of every family.

    python scripts/gpu/packed.py [--output packed.json] [key=value …]

The script compares the log-probabilities of supervised tokens and the gradients of all weights. Packing may only change
the rounding. The difference is reported next to the difference between bf16 and float32, and is an error if it is more
than twice as large.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import results
import torch
from accelerate.utils import send_to_device
from attention_kernels import relative_error
from job import Job, Trained, make_job
from transformers.utils import logging
from workload import ANSWERS

from qwenvl_train.model.autocast import autocast

MODELS = ("tiny_qwen2_vl", "tiny", "tiny_qwen3_vl", "tiny_qwen3_vl_moe")
SAMPLES = 4
WORST = 2.0
"""The largest difference that passes, as a multiple of the difference between bf16 and float32."""

Pass = tuple[torch.Tensor, torch.Tensor]
"""The log-probabilities of the supervised tokens, and the gradients of all weights."""


def measure(job: Job) -> dict[str, Any]:
    samples = job.samples(0)
    packed, *alone = (
        send_to_device(row.batch, job.device)
        for row in (job.rows[0], *(job.train.rows([sample]) for sample in samples))
    )
    model = Trained(job).model
    exact, rounded = (forward_backward(job, model, [packed], half) for half in (False, True))
    separate = forward_backward(job, model, alone, half=True)
    told: dict[str, Any] = {"tokens": sum(job.contents[0].lengths)}
    for index, what in enumerate(("log_probs", "gradients")):
        told[what] = {
            "packed_to_alone": relative_error(rounded[index], separate[index]),
            "bf16_to_float32": relative_error(rounded[index], exact[index]),
        }
        told[what]["right"] = told[what]["packed_to_alone"] <= WORST * told[what]["bf16_to_float32"]
    return told


def forward_backward(job: Job, model: torch.nn.Module, batches: Iterable[dict[str, Any]], half: bool) -> Pass:
    model.zero_grad()
    log_probs = []
    for batch in batches:
        with autocast(job.device.type, torch.bfloat16 if half else None):
            found = model(**batch).log_probs
        (-found.sum()).backward()
        log_probs.append(found.detach())
    gradients = [weights.grad.flatten() for weights in model.parameters() if weights.grad is not None]
    return torch.cat(log_probs), torch.cat(gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_output(parser)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the run, as for qwenvl-train")
    given = parser.parse_args()
    logging.set_verbosity_error()
    settings = ["train.precision=bf16", "train.checkpointing=none", *given.settings]
    result: dict[str, Any] = {"worst_allowed": WORST, "models": {}}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            job = make_job(Path(folder), name, "sft_full", ANSWERS, 2 * SAMPLES, SAMPLES, 1, 0, settings)
            row = result["models"][job.family.name] = measure(job)
        for what in ("log_probs", "gradients"):
            found = row[what]
            print(
                f"{job.family.name}, {what}: packed to alone {found['packed_to_alone']:.1e}, "
                f"bf16 to float32 {found['bf16_to_float32']:.1e}{'' if found['right'] else ', WRONG'}",
                flush=True,
            )
        results.write(result, given.output)
    if not all(row[what]["right"] for row in result["models"].values() for what in ("log_probs", "gradients")):
        raise SystemExit("A packed row computes something else than its samples alone.")


if __name__ == "__main__":
    main()
