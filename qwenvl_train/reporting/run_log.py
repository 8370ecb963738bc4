"""The file log.txt of a run: what the run prints, and what libraries log and warn, with time and rank."""

import logging
import os
import shlex
import sys
import traceback
import warnings
from contextlib import ExitStack
from io import FileIO, TextIOWrapper
from logging.handlers import MemoryHandler
from pathlib import Path
from socket import gethostname
from threading import Thread
from types import TracebackType
from typing import Any

from qwenvl_train.errors import UserError, message_of
from qwenvl_train.reporting.repeat import command

FILE_NAME = "log.txt"

LOGGER = logging.getLogger("qwenvl_train")
LOGGER.propagate = False
LOGGER.addHandler(logging.NullHandler())
"""What this logger gets is written to log.txt, and is not printed. Without a RunLog, it is dropped."""


class RunLog:
    """While it is entered, log records of libraries and Python's warnings go to log.txt instead of the terminal, where
    only errors appear. Records are kept in memory until `open` is called.

    If a fault in the code ends the run before that, the warnings are printed on stderr, since they may explain it.
    """

    def __init__(self) -> None:
        self._errors = _ErrorHandler()
        self._memory = _Memory(self._errors)
        self._formatter = _Formatter(os.environ.get("RANK", "0"))
        self._errors.setFormatter(self._formatter)
        self._stack = ExitStack()

    def __enter__(self) -> "RunLog":
        root = logging.getLogger()
        for logger, handler in ((root, self._memory), (root, self._errors), (LOGGER, self._memory)):
            logger.addHandler(handler)
            self._stack.callback(logger.removeHandler, handler)
        self._stack.callback(LOGGER.setLevel, LOGGER.level)
        LOGGER.setLevel(logging.INFO)
        self._capture_warnings()
        self._take_over_handlers()
        if self._formatter.rank == "0":
            LOGGER.info(f"started: {shlex.join(command())}")
        return self

    def open(self, path: Path) -> None:
        """Append the records so far and all further ones to a file. A run does not need its log, so a file that cannot
        be written is no error; one line on stderr says so."""
        try:
            file = _LogFile(path)
        except OSError as error:
            _say_unwritable(path, error)
            self._memory.setTarget(logging.NullHandler())
        else:
            file.setFormatter(self._formatter)
            self._memory.setTarget(file)
        self._memory.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case UserError():
                if self._formatter.rank == "0" or not error.on_every_process:
                    LOGGER.error(message_of(error))
            case KeyboardInterrupt():
                LOGGER.error("interrupted")
            case Exception():
                LOGGER.critical("the run has failed", exc_info=error)
        if self._memory.target is None and isinstance(error, Exception) and not isinstance(error, UserError):
            self._memory.print_warnings()
        self._stack.close()
        if self._memory.target is not None:
            self._memory.target.close()

    def _set_propagate(self, logger: logging.Logger, value: bool) -> None:
        self._stack.callback(setattr, logger, "propagate", logger.propagate)
        logger.propagate = value

    def _capture_warnings(self) -> None:
        if _warnings_are_captured():
            return
        logging.captureWarnings(True)
        self._stack.callback(logging.captureWarnings, False)

    def _take_over_handlers(self) -> None:
        """Pass the records of each library to the root logger, instead of to its own handlers for the terminal.

        Libraries add these handlers when they are imported, which may be in the middle of a run. The factory of records
        is called for each record before it is handled, so it is where they are removed.
        """
        make_record = logging.getLogRecordFactory()

        def factory(name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
            logger: logging.Logger | None = logging.getLogger(name)
            while logger is not None and logger.parent is not None and logger is not LOGGER:
                self._take_over(logger)
                logger = logger.parent
            return make_record(name, *args, **kwargs)

        logging.setLogRecordFactory(factory)
        self._stack.callback(logging.setLogRecordFactory, make_record)

    def _take_over(self, logger: logging.Logger) -> None:
        for handler in [handler for handler in logger.handlers if _is_for_the_terminal(handler)]:
            logger.removeHandler(handler)
            self._stack.callback(logger.addHandler, handler)
            self._set_propagate(logger, True)


def _warnings_are_captured() -> bool:
    """Return whether Python's warnings already go to the loggers."""
    return warnings.showwarning.__module__ == "logging"


def log_file(folder: Path, first_host: str) -> Path:
    """Return the file that this process writes. Processes of one host share it. Those of other hosts than the first
    process's have a file of their own, since a network file system may lose lines that two hosts append."""
    host = gethostname()
    return folder / (FILE_NAME if host == first_host else f"log-{host}.txt")


def write_before_exit(message: str, stacks: bool = False) -> None:
    """Log an error before a process ends at once, if wanted with the stacks of all threads. This waits for a moment
    only, since the disk of the log may be what holds the process up."""

    def write() -> None:
        LOGGER.error(f"{message}\n{_stacks()}" if stacks else message)

    thread = Thread(target=write, daemon=True)
    thread.start()
    thread.join(timeout=1)


def _stacks() -> str:
    frames = sys._current_frames().items()
    return "\n".join(f"Thread {number}:\n{''.join(traceback.format_stack(frame))}" for number, frame in frames)


def _is_for_the_terminal(handler: logging.Handler) -> bool:
    # That of torch has a stream, but is no StreamHandler.
    return hasattr(handler, "stream") and not isinstance(handler, logging.FileHandler)


def _say_unwritable(path: Path, error: OSError) -> None:
    print(f"{path} cannot be written, so that lines are missing in it: {error.strerror}", file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    def __init__(self, rank: str) -> None:
        super().__init__(f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        self.rank = rank

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip()  # Python's warnings end with a line break


class _ErrorHandler(logging.Handler):
    """Prints errors on what is stderr at that time, since a live bar replaces it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._is_printing = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_printing:
            return  # wandb, which listens to stderr, logs an error for each line if its process has been killed
        self._is_printing = True
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)
        finally:
            self._is_printing = False


class _Memory(MemoryHandler):
    """Keeps records while there is no target, and then passes each on at once."""

    def __init__(self, terminal: logging.Handler) -> None:
        super().__init__(capacity=1, flushOnClose=False)
        self._terminal = terminal
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.target is None and os.getpid() != self._process:
            # This process was forked to measure the data, and its memory ends with it.
            self.print_warnings()
            self.buffer.clear()

    def print_warnings(self) -> None:
        for record in list(self.buffer):
            if record.levelno >= logging.WARNING and record.name != LOGGER.name:
                self._terminal.emit(record)


class _LogFile(logging.FileHandler):
    """A log file that several processes of one host may append to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._path = path
        self._has_failed = False

    def _open(self) -> TextIOWrapper:
        # Without a buffer, each record is one write at the end of the file, which no other process can divide.
        file = FileIO(self.baseFilename, "ab")
        return TextIOWrapper(file, self.encoding, self.errors, write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            _say_unwritable(self._path, error)
