"""Stops a run on a signal (Ctrl-C, or a scheduler's SIGTERM) after it has finished its step and saved a checkpoint."""

import signal
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from qwenvl_train.training.distributed.cpu_group import CpuGroup

# Launchers forward a signal that the terminal or the scheduler has already sent to every process. Within this time, a
# second signal is taken for such a copy.
ECHO_SECONDS = 5.0


class StopOnSignal(TrainerCallback):
    """Callback that stops the run at the end of a step after SIGINT or SIGTERM. A further signal, more than
    ECHO_SECONDS after the first, stops the process at once, because the user then means it."""

    def __init__(self, cpu_group: CpuGroup) -> None:
        self.received: int | None = None
        self._cpu_group = cpu_group
        self._previous: dict[int, Any] = {}

    def catch(self) -> None:
        """Handle these signals from now on, until `restore` is called."""
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            self.restore()
            signal.raise_signal(number)

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args, state, control, **_) -> None:
        """Stop all processes at the same step if at least one of them has received a signal."""
        if self._cpu_group.any(self.received is not None):
            self.received = self.received or signal.SIGTERM
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
