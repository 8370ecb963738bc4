"""A run that is told to stop (Ctrl-C, or a scheduler's SIGTERM) ends its step, saves, and then goes."""

import signal
from types import FrameType

from accelerate import Accelerator
from transformers import TrainerCallback


class StopOnSignal(TrainerCallback):
    """A second signal stops at once, as the user then means it."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.accelerator: Accelerator | None = None
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.restore()

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args, state, control, **_) -> None:
        """One process that heard it is enough: the others learn of it here and stop at the same step."""
        assert self.accelerator is not None
        if self.received is not None:
            self.accelerator.set_trigger()
        if self.accelerator.check_trigger():
            self.received = self.received or signal.SIGTERM
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_train_end(self, args, state, control, **_) -> None:
        self.restore()
