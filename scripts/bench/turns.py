"""All ways take turns, so that what else the computer does meets them alike."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from engine import Measured
from job import Job

# Products of float32 differ by the order of summation alone; bf16 keeps 8 bits.
ROUNDING = {"fp32": 1e-5, "bf16": 5e-3}


@dataclass
class Taken:
    """Of one way, turn by turn."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    first: dict[str, float] = field(default_factory=dict)
    """What was told of the first step: its loss, the norm of its gradient, and more."""


def measure_runs(
    job: Job, ways: dict[str, Callable[[], Measured]], rounds: int
) -> tuple[dict[str, Taken], dict[str, str]]:
    """With the reason why a way is missing; ours must not be."""
    taken: dict[str, Taken] = {name: Taken() for name in ways}
    skipped: dict[str, str] = {}
    for _ in range(rounds):
        for name in list(taken):
            reset_peak(job)
            try:
                run = ways[name]()
            except torch.OutOfMemoryError:
                if name == "ours":
                    raise
                skipped[name] = "it runs out of memory"
                del taken[name]
            else:
                taken[name].seconds.append(run.seconds)
                taken[name].waited.append(run.waited)
                taken[name].first = run.first
                taken[name].peak_bytes = max(taken[name].peak_bytes, peak(job))
            free(job)
    return taken, skipped


def reset_peak(job: Job) -> None:
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(job: Job) -> int:
    """0 on the CPU: a process's own peak would be that of all ways so far."""
    return torch.cuda.max_memory_allocated() if job.device.type == "cuda" else 0


def free(job: Job) -> None:
    """A way and its optimizer are gone before the next one comes."""
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
