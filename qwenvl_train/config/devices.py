"""The kinds of GPU whose data sheets are known."""

import re
from dataclasses import dataclass
from typing import Literal

DeviceName = Literal[
    "b200", "h200", "h100", "h100_nvl", "h100_pcie", "h20", "a100_80gb", "a100_40gb", "l40s", "l4", "a10",
    "rtx_6000_ada", "rtx_5090", "rtx_4090", "rtx_3090",
]  # fmt: skip


@dataclass(frozen=True)
class Device:
    gib: float
    """The memory in GiB, as nvidia-smi and torch count it."""
    tflops: float
    """The dense bf16 operations per second, in units of 10¹², from the makers' data sheets."""
    link_gbytes: float
    """The GB per second that it sends to another one of its node: those of NVLink, or else of PCIe with 16 lanes.
    Bridges between pairs of cards are not counted."""


DEVICES: dict[DeviceName, Device] = {
    "b200": Device(178, 2250, 900),
    "h200": Device(139, 989, 450),
    "h100": Device(79, 989, 450),
    "h100_nvl": Device(93, 835, 64),
    "h100_pcie": Device(79, 756, 64),
    "h20": Device(95, 148, 450),
    "a100_80gb": Device(79, 312, 300),
    "a100_40gb": Device(39, 312, 300),
    "l40s": Device(44, 362, 32),
    "l4": Device(22, 121, 32),
    "a10": Device(22, 125, 32),
    "rtx_6000_ada": Device(47, 364, 32),
    "rtx_5090": Device(31, 210, 64),
    "rtx_4090": Device(23.5, 165, 32),
    "rtx_3090": Device(23.5, 71, 32),
}


def device_called(name: str) -> Device | None:
    """Return the device for a name that the driver reports, such as NVIDIA A100-SXM4-80GB, or None if it is unknown."""
    words = set(re.split(r"\W+", name.lower()))
    if words & {"laptop", "mig", "d"}:  # these have less than the full card of that name
        return None
    fitting = [known for known in DEVICES if words.issuperset(known.split("_"))]
    return DEVICES[max(fitting, key=len)] if fitting else None
