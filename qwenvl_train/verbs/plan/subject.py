"""The subject of a plan: the model, its precision and the devices."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedConfig

from qwenvl_train.config.devices import DEVICES
from qwenvl_train.errors import UserError
from qwenvl_train.families import family_of
from qwenvl_train.families.family import Family
from qwenvl_train.model.shapes import architecture
from qwenvl_train.planning.device import PlannedDevice
from qwenvl_train.verbs.plan.settings import PlanConfig


@dataclass(frozen=True)
class Subject:
    family: Family
    path: str
    architecture: PreTrainedConfig
    precision: str
    device: PlannedDevice

    @property
    def heading(self) -> str:
        name = f" {self.device.name}" if self.device.name else ""
        return (
            f"{self.family.name} from {self.path}, {self.precision}, "
            f"on {self.device.count} ×{name} with {self.device.gib:g} GiB"
            + (f" on {self.device.nodes} nodes" if self.device.nodes > 1 else "")
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": {"family": self.family.name, "path": self.path},
            "precision": self.precision,
            "device": asdict(self.device),
        }


def subject_of(config: PlanConfig) -> Subject:
    sizes = architecture(config.model)
    precision, plan = precision_of(config), config.plan
    if precision == "fp32" and plan.tflops is None:
        raise UserError("train.precision=fp32: the built-in peaks of devices are those of 16 bits; set plan.tflops.")
    known = DEVICES[plan.device]
    own = plan.device_gib is not None and plan.tflops is not None
    return Subject(
        family=family_of(sizes.model_type, f"model.path {config.model.path}"),
        path=config.model.path,
        architecture=sizes,
        precision=precision,
        device=PlannedDevice(
            name=None if own else plan.device,
            count=plan.devices,
            nodes=plan.nodes,
            gib=plan.device_gib or known.gib,
            tflops=plan.tflops or known.tflops,
            mfu=plan.mfu,
            link_gbytes=plan.link_gbytes or known.link_gbytes,
            network_gbits=plan.network_gbits,
        ),
    )


def precision_of(config: PlanConfig) -> str:
    """Return the precision of the run. "auto" gives bf16, which every GPU that can be planned for supports."""
    return "bf16" if config.train.precision == "auto" else config.train.precision
