"""Ends a run that can no longer go on by itself: when a process of it is lost, or when nothing has happened for long.

A collective operation waits for all processes, so that the loss of one would leave the others waiting. Two threads in
each process look after it. One exchanges heartbeats and news with the other processes through the launcher's store, and
may itself be held up when a host is cut off. The other one only looks at the clock.
"""

import faulthandler
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType

import torch
from accelerate import PartialState

from qwenvl_train.errors import LostProcess
from qwenvl_train.reporting.run_log import write_before_exit
from qwenvl_train.reporting.wording import duration
from qwenvl_train.training.distributed import store
from qwenvl_train.training.distributed.store import beats_of, own_connection

_NEWS = "watch/news"
"""Key of the reason for which a process ends the run."""
_HOST = "watch/host/"
_STALLED = "nothing has happened"
_CAUSES = "it was killed, or a host is down or cut off."
_CONNECTION = re.compile(r"gloo/transport|Connection (closed|reset) by peer|NCCL")


class Watch:
    """Watches over this process and others: the first process over all, and the others over the first. It is entered
    while a run trains.

    Args:
        stall_seconds: The time without progress after which the run ends. With None, it may take any time.
        advice: Returns a sentence that says how to go on, for the end of the message.
    """

    def __init__(self, state: PartialState, stall_seconds: float | None, advice: Callable[[], str]):
        self._rank, self._processes = state.process_index, state.num_processes
        self._speaks = state.is_local_main_process
        self._stall_seconds, self._advice = stall_seconds, advice
        self._ended = Event()
        self._threads: list[Thread] = []
        self._progressed = self._reached = monotonic()
        """The times of the last progress, and of the last reply of the store."""
        self._heard: dict[int, tuple[int, float]] = {}
        """The number of heartbeats of each process that this one watches, and the time at which it last changed."""

    def progress(self, *_: object) -> None:
        """Note that this process has made progress. This has the form of a hook of a module."""
        self._progressed = monotonic()

    def __enter__(self) -> "Watch":
        self._progressed = self._reached = monotonic()
        jobs = [self._look_at_the_clock]
        if self._processes > 1:
            connection = own_connection()
            connection.set(f"{_HOST}{self._rank}", socket.gethostname())
            jobs.append(lambda: self._exchange(connection))
        self._threads = [Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * store.BEAT)

    def _exchange(self, connection: torch.distributed.Store) -> None:
        watched = range(1, self._processes) if self._rank == 0 else (0,)
        while not self._ended.is_set():
            try:
                for rank in watched:
                    count = connection.add(beats_of(rank), 0)
                    if count != self._heard.get(rank, (-1, 0.0))[0]:
                        self._heard[rank] = count, monotonic()
                news = connection.get(_NEWS).decode() if connection.check([_NEWS]) else ""
                self._reached = monotonic()
                if news:
                    self._end(news)
                if lost := self._lost(connection):
                    connection.set(_NEWS, lost)
                    sleep(2 * store.BEAT)  # until the others have read it
                    self._end(lost)
                if stalled := self._stalled():
                    connection.set(_NEWS, stalled)
                    self._end(stalled)
            except RuntimeError:
                # The store has ended with the first process. The clock tells if this process goes on alone.
                return
            self._ended.wait(store.BEAT)

    def _look_at_the_clock(self) -> None:
        while not self._ended.wait(min(1.0, store.BEAT)):
            if self._processes > 1 and monotonic() - self._reached > store.SILENCE:
                here = f"process {self._rank} on host {socket.gethostname()}"
                self._end(f"process 0 cannot be reached any more from {here}: {_CAUSES}")
            # With several processes, the other thread tells them, unless it is held up.
            if stalled := self._stalled(0 if self._processes == 1 else store.SILENCE):
                self._end(stalled)

    def _lost(self, connection: torch.distributed.Store) -> str:
        for rank, (_, heard) in self._heard.items():
            if monotonic() - heard > store.SILENCE:
                host = connection.get(f"{_HOST}{rank}").decode() if connection.check([f"{_HOST}{rank}"]) else "unknown"
                silence = duration(store.SILENCE)
                return f"process {rank} on host {host} has not been heard of for {silence}: {_CAUSES}"
        return ""

    def _stalled(self, longer: float = 0) -> str:
        if self._stall_seconds is None or monotonic() - self._progressed <= self._stall_seconds + longer:
            return ""
        return (
            f"{_STALLED} in process {self._rank} on host {socket.gethostname()} for {duration(self._stall_seconds)} "
            "(train.stall_seconds). The stacks of all processes are above."
        )

    def _end(self, reason: str) -> None:
        """End this process at once, whatever its main thread waits for."""
        if self._ended.is_set():
            return
        try:
            stalled = reason.startswith(_STALLED)
            write_before_exit(reason, stacks=stalled)
            if stalled:
                print(f"process {self._rank} on host {socket.gethostname()}:", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(file=sys.stderr)
                if self._processes > 1:
                    sleep(2 * store.BEAT)  # the launcher ends the others when this process ends
            if self._speaks:
                print(f"qwenvl-train: {reason} {self._advice()}", file=sys.stderr, flush=True)
        finally:  # nobody may read it any more
            os._exit(1)


@contextmanager
def naming_lost_processes(advice: Callable[[], str]) -> Iterator[None]:
    """Raise LostProcess instead of torch's error when a connection to another process fails inside the `with` block."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and not _CONNECTION.search(str(error)):
            raise
        raise LostProcess(
            "The connection to another process was lost. That process has ended, or its host is down; its own last "
            f"output says why. {advice()} ({str(error).strip().splitlines()[0]})"
        ) from error
