"""Profile the time of a device: the share of idle time, and the busy time by kind of kernel."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "attention": ("flash", "fmha", "attention"),
    "optimizer, gradient norm": ("adam", "multi_tensor", "lpnorm", "foreach"),
    "matrix products": ("gemm", "gemv", "nvjet", "cutlass", "cublas", "wgmma", "splitk", "sm90_xmma", "mm"),
    "copies, casts, fills": ("copy", "memcpy", "memset", "cast", "fill", "aten::to"),
    "loss": ("logprob", "log_softmax", "logsumexp"),
    "norms, sums": ("reduce", "norm", "sum", "mean"),
    "indexing": ("index", "gather", "scatter", "embedding"),
    "pointwise": ("elementwise", "triton", "liger", "silu", "mul", "add"),
}
"""Substrings of kernel names for each kind. The first kind that matches is used, since names can match several: flash
kernels also contain cutlass."""
TOP = 15
"""The number of kernels that are reported by name."""


def profile_steps(step: Callable[[int], Any], steps: int, device: torch.device) -> dict[str, Any]:
    """Profile some steps. Without a GPU, operators replace kernels, and nested operators count twice."""
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as recorded:
        _wait(device)
        began = time.perf_counter()
        for index in range(steps):
            step(index)
        _wait(device)
        seconds = time.perf_counter() - began
    wanted = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    events = recorded.events() or []
    kernels = [event for event in events if event.device_type == wanted and not event.is_user_annotation]
    if not kernels:
        raise RuntimeError("The profiler saw nothing of what the device did.")
    return {"seconds_per_step": seconds / steps} | told(kernels, steps)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def told(kernels: list[FunctionEvent], steps: int) -> dict[str, Any]:
    """Return the report. The times of the profiler are in microseconds."""
    times, spent, kinds = Counter(), Counter(), Counter()
    for kernel in kernels:
        taken = kernel.time_range.end - kernel.time_range.start
        times[kernel.name] += 1
        spent[kernel.name] += taken
        kinds[kind_of(kernel.name)] += taken
    whole = sum(spent.values())
    longest = [
        {
            "name": name[:160],
            "share": taken / whole,
            "ms_per_step": taken / steps / 1e3,
            "per_step": times[name] / steps,
        }
        for name, taken in spent.most_common(TOP)
    ]
    return {
        "idle": idle_share((kernel.time_range.start, kernel.time_range.end) for kernel in kernels),
        "kernels_per_step": len(kernels) / steps,
        "kinds": {kind: taken / whole for kind, taken in kinds.most_common()},
        "top": longest,
    }


def kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, marks in KINDS.items() if any(mark in lower for mark in marks)), "other")


def idle_share(spans: Iterable[tuple[float, float]]) -> float:
    """Return the share of time in which no kernel runs, from the start of the first kernel to the end of the last."""
    ordered = sorted(spans)
    first = reached = ordered[0][0]
    busy = 0.0
    for start, end in ordered:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - busy / (reached - first)
