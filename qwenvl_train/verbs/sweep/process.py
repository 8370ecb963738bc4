"""Starts a run in a process of its own, so that each has clean memory and its own random state."""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_KEPT = 40
"""Number of lines of stderr in which the message of a failed run is looked for."""


def start(arguments: list[str]) -> tuple[int, str]:
    """Run the command with these arguments. Return its exit code and, if it failed, its message. If it was interrupted,
    the code is that of the signal, even if the signal came too early or too late for the run."""
    command = [sys.executable, "-m", "qwenvl_train", *arguments]
    lines: deque[str] = deque(maxlen=_KEPT)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        with _passing_signals_to(process) as received:
            for line in process.stderr:
                sys.stderr.write(line)
                sys.stderr.flush()
                lines.append(line.rstrip())
            code = process.wait()
    if received:
        return 128 + received[-1], received[-1].name
    return code, message_of(code, lines) if code else ""


def message_of(code: int, lines: Iterable[str]) -> str:
    """Return what a failed run said last, in one line: its error, or else the last line of a traceback."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    shown = [line for line in lines if line.strip()]
    starts = [number for number, line in enumerate(shown) if line.startswith("qwenvl-train: ")]
    if not starts:
        return shown[-1] if shown else f"exit code {code}"
    first, *more = shown[starts[-1] :]
    return "; ".join([first.removeprefix("qwenvl-train: "), *(line.strip() for line in more)])


@contextmanager
def _passing_signals_to(process: subprocess.Popen) -> Iterator[list[signal.Signals]]:
    """Pass Ctrl-C and SIGTERM on to the run, which then saves a checkpoint and ends. Yield the list of those that came.
    A run ignores a second Ctrl-C that comes at once, as when the terminal has already sent it one."""
    received: list[signal.Signals] = []

    def pass_on(number, frame) -> None:
        received.append(signal.Signals(number))
        if process.poll() is None:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
