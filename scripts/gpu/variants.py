"""Time the optimizer step of a model with random weights in several settings, and profile it:

    python scripts/gpu/variants.py --way kept:train.checkpointing=none --way all: [--profile kept] [key=value …]

A way is a name and settings of train.*, as for qwenvl-train. Every way starts from the same weights, uses the same
packed rows, which are already on the device, and must give the same loss. The result has the time, tokens a second, MFU
as the project computes it, and the peak memory next to the prediction of `qwenvl-train plan`. It is written after
each way, so that a way that fails, or for which no time is left, does not affect the results of the others.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import argparse
import math
import statistics
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import results
import step_ways
import torch
from job import Job, Trained
from profiling import profile_steps
from turns import ROUNDING, free, peak, reset_peak
from workload import ANSWERS

import qwenvl_train
from qwenvl_train.batch import Contents
from qwenvl_train.planning.memory import GIB, Load, memory, sized, traced_pass
from qwenvl_train.training.optim import build_optimizer, parameter_groups

STARTED = time.perf_counter()
PROFILED_STEPS = 2


@dataclass(frozen=True)
class Rows:
    """The packed rows that every way uses."""

    way: step_ways.Way
    contents: list[Contents]

    @property
    def longest(self) -> Contents:
        return max(self.contents, key=lambda one: sum(one.lengths))


class Step:
    """One training step: forward and backward pass, gradient clipping and optimizer."""

    def __init__(self, job: Job, rows: Rows) -> None:
        trained = Trained(job)
        rows.way.prepare(trained)
        self._job, self._rows, self._model, self._autocast = job, rows, trained.model, trained.autocast
        groups = parameter_groups(self._model, job.family, job.config)
        self._optimizer = build_optimizer(groups, job.config.optim)
        self._parameters = [weights for weights in self._model.parameters() if weights.requires_grad]

    def __call__(self, index: int) -> torch.Tensor:
        """Run the step, and return the loss and the gradient norm as tensors on the device."""
        index %= len(self._rows.contents)
        way, supervised = self._rows.way, self._rows.contents[index].supervised
        with self._autocast():
            loss = way.loss(self._model, way.micro_batches[index]) / supervised
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._job.config.train.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return torch.stack([loss.detach(), norm])


def with_settings(job: Job, settings: list[str]) -> Job:
    """Return the configuration, read and checked as by the command line."""
    given = qwenvl_train.compose([f"+recipe={job.recipe}", f"model={job.model}", *settings]).config.train
    keys = [setting.partition("=")[0].removeprefix("train.") for setting in settings]
    return job.with_training(**{key: getattr(given, key) for key in keys})


def measure(job: Job, rows: Rows, step: Step, rounds: int, peak_tflops: float | None) -> dict[str, Any]:
    count = len(rows.contents)
    start = job.now()
    loss, norm = step(0).tolist()
    first = job.now() - start
    for index in range(1, count):  # The first step on each row length allocates memory and compiles code.
        step(index)
    job.now()
    reset_peak(job)
    seconds, asked = [], []
    for _ in range(rounds):
        start, began = job.now(), time.perf_counter()
        for index in range(count):
            step(index)
        asked.append(time.perf_counter() - began)
        seconds.append(job.now() - start)
    taken, bytes_ = statistics.median(seconds), peak(job)
    tokens = sum(sum(one.lengths) for one in rows.contents)
    tflops = job.flops(rows.contents) / taken / 1e12
    return {
        "loss": loss,
        "grad_norm": norm,
        "first_step_seconds": first,
        "steps": count,
        "seconds_per_step": taken / count,
        "tokens_per_second": tokens / taken,
        "tflops": tflops,
        "mfu": tflops / peak_tflops if peak_tflops else None,
        "host_share": statistics.median(asked) / taken,
        "peak_gib": bytes_ / GIB if bytes_ else None,
    }


def planned_gib(job: Job, contents: Contents) -> float:
    """Return the peak memory that `qwenvl-train plan` predicts for torch."""
    load = Load(sum(contents.lengths), sum(t * h * w for t, h, w in contents.grids), contents.supervised)
    traced = traced_pass(job.architecture, job.family, job.config, job.precision, load)
    sizes = sized(job.architecture, job.family, job.config)
    return memory(sizes, traced, job.architecture, job.config, job.precision, 1).counted / GIB


class Comparison:
    """Runs all ways one after the other."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._reference: float | None = None
        """The loss of the first way, which the others must match."""

    def __call__(self, job: Job, rounds: int, folder: Path, peak_tflops: float | None) -> dict[str, Any]:
        rows = Rows(step_ways.packed(job), job.contents)
        result: dict[str, Any] = {
            "job": {
                "model": job.model,
                "recipe": job.recipe,
                "precision": job.precision,
                "row_tokens": [sum(one.lengths) for one in rows.contents],
                "rounds": rounds,
                "peak_tflops": peak_tflops,
            },
            "ways": {},
        }
        for words in self._given.way:
            name, _, settings = words.partition(":")
            row = result["ways"][name] = {"settings": settings.split(",") if settings else []}
            if time.perf_counter() - STARTED > self._given.until:
                row["skipped"] = "no time left"
            else:
                self._take(with_settings(job, row["settings"]), rows, name, row, peak_tflops)
            print(f"{name}: {_words(row)}", flush=True)
            results.write(result, self._given.output)
            free(job)
        return result

    def _take(self, job: Job, rows: Rows, name: str, row: dict[str, Any], peak_tflops: float | None) -> None:
        """Measure one way. Each result is written to `row` as soon as it is known."""
        try:
            step = Step(job, rows)
            row |= measure(job, rows, step, self._given.rounds, peak_tflops)
            row["right"] = self._is_right(row["loss"], job)
            row["planned_gib"] = planned_gib(job, rows.longest)
            if name in self._given.profile:
                row["profile"] = profile_steps(step, PROFILED_STEPS, job.device)
        except torch.OutOfMemoryError as error:
            row["skipped"] = f"out of memory: {error}".partition(". ")[0]
        except Exception:
            row["failed"] = traceback.format_exc(limit=-8)

    def _is_right(self, loss: float, job: Job) -> bool:
        self._reference = self._reference or loss
        return math.isclose(loss, self._reference, rel_tol=ROUNDING[job.precision])


def _words(row: dict[str, Any]) -> str:
    told = []
    if "seconds_per_step" in row:
        told += [f"{row['seconds_per_step']:.3f} s a step", f"{row['tokens_per_second']:,.0f} tokens/s"]
        told += [f"first step {row['first_step_seconds']:.1f} s", f"loss {row['loss']:.4f}"]
        told += [] if row["right"] else ["WRONG"]
    forms = {"mfu": "MFU {:.1%}", "peak_gib": "peak {:.1f} GiB", "planned_gib": "plan {:.1f} GiB"}
    told += [form.format(row[key]) for key, form in forms.items() if row.get(key)]
    told += [f"idle {row['profile']['idle']:.1%}"] if "profile" in row else []
    return ", ".join([*told, *(row[reason] for reason in ("skipped", "failed") if reason in row)])


def main() -> None:
    parser = command.make_parser(__doc__, ANSWERS, on_gpu=36, on_cpu=8)
    parser.add_argument("--recipe", default="sft_lora")
    parser.add_argument("--way", action="append", required=True, metavar="NAME:[key=value,…]")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="a way to be profiled")
    parser.add_argument("--until", type=float, default=math.inf, help="seconds after which no way begins")
    parser.add_argument("--eager", action="store_true", help="let torch.compile leave code as it is, to save minutes")
    given = parser.parse_args()
    if given.eager:
        torch.compiler.set_stance("force_eager")
    result = command.run(given, given.recipe, ANSWERS, Comparison(given))
    results.write(result, given.output)
    if wrong := [name for name, row in result["ways"].items() if "failed" in row or not row.get("right", True)]:
        raise SystemExit(f"Failed, or computes something else: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
