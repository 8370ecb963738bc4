"""The objects that all parts of a training run share."""

from dataclasses import dataclass

import torch
from accelerate import PartialState
from transformers import ProcessorMixin

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.families.family import Family
from qwenvl_train.training.distributed.cpu_group import CpuGroup


@dataclass(frozen=True)
class RunContext:
    config: RunConfig
    family: Family
    processor: ProcessorMixin
    renderer: Renderer
    precision: str
    state: PartialState
    cpu_group: CpuGroup

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes to the run folder."""
        return self.state.is_main_process

    @property
    def rank(self) -> int:
        return self.state.process_index

    @property
    def processes(self) -> int:
        return self.state.num_processes

    @property
    def device(self) -> torch.device:
        return self.state.device
