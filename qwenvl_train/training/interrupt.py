"""Stops a run on a signal (Ctrl-C, a scheduler's SIGTERM or SIGUSR1, a closed terminal's SIGHUP) after it has finished
its step and saved a checkpoint. The same happens when the program that reads its output has ended."""

import os
import select
import signal
import sys
import time
from threading import Timer
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from qwenvl_train.reporting.run_log import write_before_exit
from qwenvl_train.training.distributed.cpu_group import CpuGroup

# Launchers forward a signal that the terminal or the scheduler has already sent to every process. Within this time, a
# second signal is taken for such a copy.
ECHO_SECONDS = 5.0

# SLURM sends SIGUSR1 some time before it ends a job, if it is asked to.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]


class StopOnSignal(TrainerCallback):
    """Callback that stops the run at the end of a step after SIGINT, SIGTERM, SIGUSR1 or SIGHUP. A further signal, more
    than ECHO_SECONDS after the first, stops the process at once, because the user then means it.

    Args:
        grace_seconds: The time after a signal other than SIGINT in which the run must have ended. If its step and its
            checkpoint take longer, it ends without them.
    """

    def __init__(self, cpu_group: CpuGroup, grace_seconds: float) -> None:
        self.received: int | None = None
        """SIGINT or SIGTERM, which the others are taken for."""
        self._cpu_group = cpu_group
        self._grace_seconds = grace_seconds
        self._since: float | None = None
        """When the first signal came to this process. Another process may have told of one before."""
        self._timer: Timer | None = None
        self._previous: dict[int, Any] = {}

    def catch(self) -> None:
        """Handle these signals from now on, until `restore` is called. Those that are ignored remain so, such as SIGHUP
        under nohup."""
        handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._receive) for number in handled}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self.received = self.received or (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        elif number == signal.SIGINT and time.monotonic() - self._since > ECHO_SECONDS:
            self.restore()
            signal.raise_signal(number)
        if number != signal.SIGINT and self._timer is None:
            self._timer = Timer(self._grace_seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        try:
            message = (
                f"the step and its checkpoint have taken longer than train.grace_seconds={self._grace_seconds:g} since "
                "the signal; the run ends without them."
            )
            write_before_exit(message)
            print(f"qwenvl-train: {message}", file=sys.stderr, flush=True)
        finally:  # nobody may read it any more
            os._exit(128 + signal.SIGTERM)

    def has_saved(self) -> None:
        """Let the run take its time from now on, because it has saved its checkpoint."""
        if self._timer is not None:
            self._timer.cancel()

    def restore(self) -> None:
        self.has_saved()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args, state, control, **_) -> None:
        """Stop all processes at the same step if at least one of them has received a signal, or if nobody reads its
        output any more."""
        self._leave_closed_outputs()
        if self._cpu_group.any(self.received is not None):
            self.received = self.received or signal.SIGTERM
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_log(self, args, state, control, **_) -> None:
        """Leave outputs that were closed since the step has ended, such as during an evaluation, before its figures are
        printed."""
        self._leave_closed_outputs()

    def _leave_closed_outputs(self) -> None:
        """Take an output that nobody reads any more for a signal. Further output, which would be an error, is
        dropped."""
        for output in (1, 2):
            if _reader_has_ended(output):  # such as an SSH connection of a launcher
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)
                if self._since is None:
                    self._receive(signal.SIGTERM, None)


def _reader_has_ended(descriptor: int) -> bool:
    """Return whether the other end of a pipe or of a connection is closed."""
    if not hasattr(select, "poll"):  # on Windows
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
