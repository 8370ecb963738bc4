"""Run all ways alternately, so that other load on the computer affects them alike."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from engine import Measured
from job import Job

# Matrix products in float32 differ only by the order of summation. bf16 has 8 bits of precision.
ROUNDING = {"fp32": 1e-5, "bf16": 5e-3}


@dataclass
class Taken:
    """The measurements of one way, one per turn."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    first: dict[str, float] = field(default_factory=dict)
    """The metrics of the first step: its loss, gradient norm and others."""


def measure_runs(
    job: Job, ways: dict[str, Callable[[], Measured]], rounds: int
) -> tuple[dict[str, Taken], dict[str, str]]:
    """Return the measurements, and the reason if a way is missing. This project's way must not be missing."""
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
    """Return the peak memory. It is 0 on a CPU, where the peak of the process would be that of all ways so far."""
    return torch.cuda.max_memory_allocated() if job.device.type == "cuda" else 0


def free(job: Job) -> None:
    """Free the memory of a way and its optimizer before the next one."""
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
