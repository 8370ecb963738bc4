"""All ways take turns, and must come to the same loss: what `step.py` measures."""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import step_runs
import step_ways
import torch
from step_job import Job, Trained
from step_ways import Way

from qwenvl_train.training.optim import build_optimizer, parameter_groups

# Products of float32 differ by the order of summation alone; bf16 keeps 8 bits.
ROUNDING = {"fp32": 1e-5, "bf16": 5e-3}


@dataclass
class Taken:
    """Of one way, turn by turn."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    loss: float = 0.0
    """Of the first step."""
    gradient: float = 0.0
    """Its norm."""


def measure_steps(
    job: Job, trained: Trained, rounds: int
) -> tuple[dict[str, Taken], dict[str, list[int]], dict[str, str]]:
    """With the tokens of each way's micro-batches, and why a way is missing."""
    ways, skipped = {"padded_sdpa": step_ways.padded(job, "sdpa")}, {}
    if reason := step_ways.no_flash(job):
        skipped["padded_flash"] = reason
    else:
        ways["padded_flash"] = step_ways.padded(job, "flash_attention_2")
    ways["packed"] = step_ways.packed(job)
    optimizer = build_optimizer(parameter_groups(trained.model, job.family, job.config), job.config.optim)
    taken = {name: Taken() for name in ways}
    for turn in range(1 + rounds):  # the first warms up
        for name in list(taken):
            try:
                _take_turn(job, trained, optimizer, ways[name], taken[name], counts=turn > 0)
            except torch.OutOfMemoryError:
                if name == "packed":
                    raise
                skipped[name] = "it runs out of memory"
                del taken[name]
            if name in skipped:
                optimizer.zero_grad()
                free(job)
    return taken, {name: way.tokens for name, way in ways.items()}, skipped


def _take_turn(
    job: Job, trained: Trained, optimizer: torch.optim.Optimizer, way: Way, taken: Taken, counts: bool
) -> None:
    parameters = [parameter for parameter in trained.model.parameters() if parameter.requires_grad]
    accumulation = job.config.train.accumulation
    way.prepare(trained)
    _reset_peak(job)
    start = job.now()
    for first in range(0, len(way.micro_batches), accumulation):
        supervised = sum(contents.supervised for contents in job.contents[first : first + accumulation])
        total = torch.zeros((), device=job.device)
        for inputs in way.micro_batches[first : first + accumulation]:
            with job.autocast():
                loss = way.loss(trained.model, inputs) / supervised
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(parameters, job.config.train.clip)
        optimizer.step()
        optimizer.zero_grad()
        if first == 0 and not counts:
            taken.loss, taken.gradient = total.item(), norm.item()
    seconds = job.now() - start
    if counts:
        taken.seconds.append(seconds)
        taken.peak_bytes = max(taken.peak_bytes, _peak(job))


def measure_runs(job: Job, trained: Trained, rounds: int, folder: Path) -> tuple[dict[str, Taken], dict[str, str]]:
    runs: dict[str, Callable[[Job, Trained, Path], step_runs.Measured]] = {
        "trl": step_runs.run_trl,
        "ours": step_runs.run_ours,
    }
    taken: dict[str, Taken] = {name: Taken() for name in runs}
    skipped: dict[str, str] = {}
    for _ in range(rounds):
        for name in list(taken):
            _reset_peak(job)
            try:
                measured = runs[name](job, trained, folder)
            except torch.OutOfMemoryError:
                if name == "ours":
                    raise
                skipped[name] = "it runs out of memory"
                del taken[name]
            else:
                taken[name].seconds.append(measured.seconds)
                taken[name].waited.append(measured.waited)
                taken[name].loss = measured.loss
                taken[name].peak_bytes = max(taken[name].peak_bytes, _peak(job))
            trained.model.zero_grad()
            free(job)
    return taken, skipped


def _reset_peak(job: Job) -> None:
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(job: Job) -> int:
    return torch.cuda.max_memory_allocated() if job.device.type == "cuda" else 0


def free(job: Job) -> None:
    """A way and its optimizer are gone before the next one comes."""
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()


def check_equal(job: Job, steps: dict[str, Taken], runs: dict[str, Taken], trl_learns: float | None) -> None:
    """A way that is fast because it computes something else would prove nothing."""
    rounding = ROUNDING[job.precision]
    expected = next(iter(steps.values()))
    for name, taken in steps.items():
        assert math.isclose(taken.loss, expected.loss, rel_tol=rounding), (name, taken, expected)
        assert math.isclose(taken.gradient, expected.gradient, rel_tol=10 * rounding), (name, taken, expected)
    for name, loss in (("ours", expected.loss), ("trl", trl_learns)):
        assert name not in runs or loss is None or math.isclose(runs[name].loss, loss, rel_tol=rounding), (
            name,
            runs[name],
            loss,
        )
