"""The devices for which a run is planned, and what a plan assumes of any run."""

from dataclasses import dataclass

import yaml

from qwenvl_train.config.assets import asset_dir


@dataclass(frozen=True)
class PlannedDevice:
    """The devices of a run, which are all of one kind."""

    name: str | None
    """None if the user gave both `gib` and `tflops`."""
    count: int
    """Number of devices, on all nodes together."""
    nodes: int
    gib: float
    """Memory of each device, in GiB."""
    tflops: float
    """Peak TFLOPS of each device in 16 bits."""
    mfu: float
    """Share of `tflops` that the run is assumed to use."""
    link_gbytes: float
    """GB per second that a device sends to another one of its node."""
    network_gbits: float
    """Gbit per second that a node sends to another one."""

    @property
    def speed(self) -> float:
        """Return the bytes per second of a ring through all devices: those of its slowest connection."""
        link, network = self.link_gbytes * 1e9, self.network_gbits / 8 * 1e9
        return min(link, network) if self.nodes > 1 else link


@dataclass(frozen=True)
class Assumptions:
    """The defaults of the verb plan for what no device tells."""

    mfu: float
    network_gbits: float


def assumptions() -> Assumptions:
    """Return what configs/plan.yaml assumes."""
    plan = yaml.safe_load((asset_dir("configs") / "plan.yaml").read_text(encoding="utf-8"))["plan"]
    return Assumptions(plan["mfu"], plan["network_gbits"])
