"""What the devices of a run can do, and how much of their memory it took."""

import resource
import sys

import torch

from qwenvl_train.config.devices import device_called


def peak_tflops(precision: str) -> float | None:
    if not torch.cuda.is_available() or precision == "fp32":
        return None
    device = device_called(torch.cuda.get_device_name())
    return None if device is None else device.tflops


def peak_memory_gib() -> float:
    """The most so far: what torch held on the GPU, or else this process in the host's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
