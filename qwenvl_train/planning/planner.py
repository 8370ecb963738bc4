"""Forecasts the memory and the time of a step from the sizes of the model, of the data and of the devices."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from qwenvl_train.config.schema import COMPONENTS, RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.build import refuse_what_experts_cannot
from qwenvl_train.model.components import Mode, mode_of
from qwenvl_train.planning.communication import Communication, exchanges
from qwenvl_train.planning.device import PlannedDevice
from qwenvl_train.planning.memory import Load, Memory, Sized, TracedPass, memory, sized, traced_pass


@dataclass(frozen=True)
class StepTime:
    computing: float
    """Seconds in which each device computes."""
    sent: Communication

    @property
    def seconds(self) -> float:
        return self.computing + self.sent.waiting


class Planner:
    """A forecaster for one model, under any settings. It keeps what it has computed."""

    def __init__(self, architecture: PreTrainedConfig, family: Family, precision: str):
        self._architecture, self._family, self._precision = architecture, family, precision
        self._sized: dict[str, Sized] = {}
        self._traced: dict[str, TracedPass] = {}

    def sized(self, config: RunConfig) -> Sized:
        key = repr((_modes(config), config.model.quantize))
        if key not in self._sized:
            self._sized[key] = sized(self._architecture, self._family, config)
        return self._sized[key]

    def memory(self, config: RunConfig, load: Load, devices: int) -> Memory:
        """Return the memory on each device. `load` is the size of the largest pass."""
        refuse_what_experts_cannot(config, self._family)
        sizes = self.sized(config)
        key = repr((_modes(config), config.deepspeed.stage > 0, load))
        if key not in self._traced:
            self._traced[key] = traced_pass(self._architecture, self._family, config, self._precision, load)
        return memory(sizes, self._traced[key], self._architecture, config, self._precision, devices)

    def step_time(self, config: RunConfig, flops: float, device: PlannedDevice) -> StepTime:
        """Return the time of a step of `flops` floating-point operations on all devices together."""
        computing = flops / (device.count * device.tflops * 1e12 * device.mfu)
        found = exchanges(self.sized(config), self._architecture, config, self._precision)
        overlaps = config.deepspeed.stage == 0 or config.deepspeed.overlap_comm
        of_pass = computing / config.accumulation
        return StepTime(computing, Communication(tuple(found), device.count, device.speed, overlaps, of_pass))


def _modes(config: RunConfig) -> list[Mode]:
    return [mode_of(component, config) for component in COMPONENTS]
