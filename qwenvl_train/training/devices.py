"""The peak speed of a run's devices, and the peak of the memory that the run has used."""

import resource
import sys

import torch

from qwenvl_train.config.devices import Device, device_called


def this_device() -> Device | None:
    """Return the kind of GPU that the run uses, or None without a GPU and for an unknown one."""
    return device_called(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def peak_tflops(precision: str) -> float | None:
    device = None if precision == "fp32" else this_device()
    return None if device is None else device.tflops


def peak_memory_gib() -> float:
    """Return the largest amount of memory held so far: by torch on the GPU or, without a GPU, by this process in host
    memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
