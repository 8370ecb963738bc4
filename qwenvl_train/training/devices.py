"""What the devices of a run can do, and how much of their memory it took."""

import resource
import sys

import torch

_PEAK_TFLOPS = {
    "B300": 2250, "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H800": 989,
    "H20": 148, "A100": 312, "A800": 312, "L40S": 362, "L40": 181, "L4": 121, "A40": 150, "A10": 125, "A30": 165,
    "RTX 6000 Ada": 364, "RTX 5090": 210, "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
"""Dense, in bf16, from the makers' data sheets; a longer name stands before one that it contains."""


def peak_tflops(precision: str) -> float | None:
    if not torch.cuda.is_available() or precision == "fp32":
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in _PEAK_TFLOPS.items() if known in name), None)


def peak_memory_gib() -> float:
    """The most so far: what torch held on the GPU, or else this process in the host's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
