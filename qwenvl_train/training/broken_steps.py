"""Finds steps whose loss or gradient is not a number, and keeps them from changing the weights.

Every process decides alike, because it decides by the norm of the gradient, which is that of all processes. A loss that
is not a number makes the gradient so, too. The optimizer's step is left out on the device, without waiting for it, and
the process reads what has happened one step later, or before anything is logged or saved.

Under fp16, an infinite gradient is no fault: the scaler of the loss leaves out the step and lowers its scale.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.window import MicroBatch, Origin, Window

MOST_IN_A_ROW = 10
"""The number of broken steps in a row with which a run ends, even if it skips them."""


class BrokenRun(UserError):
    """Error that all processes raise at the same time."""


@dataclass(frozen=True)
class Suspect:
    """A micro-batch of a broken step."""

    process: int
    number: int
    """Counted from 1."""
    broken_loss: bool
    """Whether its loss is not a number."""
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class BrokenStep:
    step: int
    suspects: tuple[Suspect, ...]
    """The micro-batches of all processes whose loss is not a number. If all losses are numbers, all micro-batches."""
    ends_run: bool
    in_a_row: int
    """The number of broken steps in a row, up to this one."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        return tuple(dict.fromkeys(origin for suspect in self.suspects for origin in suspect.origins))


@dataclass(frozen=True)
class _Record:
    """The figures of a step, on their way from the device."""

    step: int
    micro_batches: list[MicroBatch]
    read: Callable[[], list[float]]
    """Waits for the loss of each micro-batch and the norm of the gradient, and returns them."""
    is_late: bool
    """Whether waiting for them right after the step would keep the device from its next one."""


def copied_later(figures: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to copy figures from a GPU. Return a function that waits for them."""
    copied, arrived = torch.empty(figures.shape, pin_memory=True), torch.cuda.Event()
    copied.copy_(figures, non_blocking=True)
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return copied.tolist()

    return read


def with_broken_gradient(loss: torch.Tensor) -> torch.Tensor:
    """Return the loss. If it is not a finite number, its gradient is not a number on any path, so that all processes
    learn of it by their common gradient."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


class BrokenSteps:
    def __init__(self, on_nan: Literal["stop", "skip"], accelerator: Accelerator, cpu_group: CpuGroup):
        self._stops, self._accelerator, self._cpu_group = on_nan == "stop", accelerator, cpu_group
        self._records: deque[_Record] = deque()
        self._broken = torch.zeros((), device=accelerator.device)
        """1 if the last step, or with `stop` any step so far, must not change the weights, else 0."""
        self._total_before: torch.Tensor | None = None
        self._unlogged = 0
        """The number of broken steps since the loss was last logged."""
        self._last_broken, self._in_a_row = -1, 0

    @property
    def _half_precision(self) -> bool:
        return self._accelerator.mixed_precision == "fp16"

    def begin(self, total_loss: torch.Tensor) -> None:
        """Begin a step. `total_loss` is the sum of the losses that are to be logged."""
        self._total_before = None if self._stops else total_loss.clone()

    def before_update(
        self, window: Window, norm: torch.Tensor | float, optimizer: AcceleratedOptimizer, total_loss: torch.Tensor
    ) -> None:
        """Keep the optimizer from its step if the norm of the gradient is not a finite number. DeepSpeed and the scaler
        of fp16 do this themselves; DeepSpeed has made its step already. Also take the losses of the step out of
        `total_loss`."""
        device = self._accelerator.device
        norm = torch.as_tensor(norm, dtype=torch.float32, device=device)
        figures = torch.stack([*(loss.float() for loss in window.losses), norm])
        sharded = self._accelerator.state.deepspeed_plugin is not None
        read = copied_later(figures) if device.type == "cuda" else figures.tolist
        # DeepSpeed has already waited for the norm, and so for the losses.
        is_late = device.type == "cuda" and not sharded
        self._records.append(_Record(window.step, window.micro_batches, read, is_late))
        if self._half_precision:
            return
        broken = (~norm.isfinite()).float()
        if self._total_before is not None:
            total_loss.copy_(torch.where(broken.bool(), self._total_before, total_loss))
        if sharded:
            return
        # The weights stay those of the step that is repeated, until the process learns of it and ends the run.
        self._broken = torch.maximum(self._broken, broken) if self._stops else broken
        if optimizer.defaults.get("fused"):
            optimizer.optimizer.found_inf = self._broken
        elif self._broken.item():
            optimizer.zero_grad(set_to_none=True)  # a weight without a gradient is not changed

    def share_in_loss(self, steps: int) -> float:
        """Return the factor by which the mean of `steps` logged losses is too small, because the broken ones among them
        count as 0. It is not a number if all are broken."""
        broken, self._unlogged = self._unlogged, 0
        return 1.0 if not broken else steps / (steps - broken) if steps > broken else float("nan")

    def found(self, step: int, everything: bool) -> list[BrokenStep]:
        """Return the broken steps that this process has learned of since the previous call. `step` is the number of
        steps that are done. On a GPU the last one is left for the next call, unless `everything` is to be known. All
        processes must call this together."""
        found = []
        while self._records and (everything or self._records[0].step < step or not self._records[0].is_late):
            record = self._records.popleft()
            *losses, norm = record.read()
            if isfinite(norm):
                continue
            if broken := self._broken_step(record, losses):
                found.append(broken)
                self._unlogged += not self._half_precision
        return found

    def _broken_step(self, record: _Record, losses: list[float]) -> BrokenStep | None:
        process = self._accelerator.process_index
        mine = [
            Suspect(process, number, not isfinite(loss), micro_batch.origins)
            for number, (micro_batch, loss) in enumerate(zip(record.micro_batches, losses, strict=True), start=1)
        ]
        suspects = self._cpu_group.everything(mine)
        broken = [suspect for suspect in suspects if suspect.broken_loss]
        if self._half_precision and not broken and not self._has_smallest_scale():
            return None
        self._in_a_row = self._in_a_row + 1 if self._last_broken == record.step - 1 else 1
        self._last_broken = record.step
        ends_run = self._stops or self._in_a_row >= MOST_IN_A_ROW
        return BrokenStep(record.step, tuple(broken or suspects), ends_run, self._in_a_row)

    def _has_smallest_scale(self) -> bool:
        """Return whether fp16's scale of the loss is so small that it cannot be what makes gradients infinite.
        DeepSpeed ends the run itself then."""
        scaler = self._accelerator.scaler
        return scaler is not None and scaler.get_scale() < 1
