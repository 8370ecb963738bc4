"""Values that processes exchange through the key-value store of their launcher, without a collective operation."""

import atexit
from collections.abc import Callable, Iterator
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep
from typing import TypeVar

import torch
from accelerate import PartialState

from qwenvl_train.errors import UserError, message_of

Made = TypeVar("Made")

BEAT = 5.0
"""Seconds between two heartbeats of a process."""
SILENCE = 60.0
"""Seconds without a heartbeat after which a process counts as lost. A busy process may miss some heartbeats."""


def agree(state: PartialState, value: str) -> str:
    """Return the main process's value on every process. The other processes wait for as long as the main process works,
    and raise RuntimeError if it has died.

    A collective operation is not suitable, because it waits only until a deadline, after which NCCL ends the process.
    """
    if state.num_processes == 1:
        return value
    store, key = _store(), f"agreed/{next(_agreed)}"
    if state.is_main_process:
        store.set(key, value)
        # The store may end with this process, so it waits until the others have read the value, but not for dead ones.
        for waited in _waiting():
            if waited > SILENCE or store.add(f"{key}/read", 0) == state.num_processes - 1:
                return value
    beats, heard = -1, 0.0
    for waited in _waiting():
        if store.check([key]):
            break
        if (now := store.add(beats_of(0), 0)) != beats:
            beats, heard = now, waited
        elif waited - heard > SILENCE:
            raise RuntimeError("the first process has died; see its last output for the reason")
    found = store.get(key).decode()
    store.add(f"{key}/read", 1)
    return found


def call_on_main(state: PartialState, work: Callable[[], Made]) -> Made | None:
    """Call `work` on the main process, while the others wait. Return its result there, and None on the others. If it
    raises UserError, all processes do."""
    made, failure = None, ""
    if state.is_main_process:
        try:
            made = work()
        except UserError as error:
            failure = message_of(error)
    if failure := agree(state, failure):
        raise UserError(failure)
    return made


def collect(state: PartialState, value: str) -> list[str]:
    """Return the values of all processes, in their order, on the main process. The other processes do not wait, and get
    an empty list."""
    store, key = _store(), f"collected/{next(_collected)}"
    store.set(f"{key}/{state.process_index}", value)
    if not state.is_main_process:
        return []
    found = []
    for rank in range(state.num_processes):
        for _ in _waiting():
            if store.check([f"{key}/{rank}"]):
                break
        found.append(store.get(f"{key}/{rank}").decode())
    return found


def _waiting() -> Iterator[float]:
    """Yield the seconds since the first item, again and again, with pauses of up to one second in between."""
    start, pause = monotonic(), 0.01
    while True:
        yield monotonic() - start
        sleep(pause)
        pause = min(1.0, 2 * pause)


_agreed, _collected = count(), count()


def start_beating(rank: int) -> None:
    """Send heartbeats from a thread for as long as this process lives, whatever its main thread does."""
    ended = Event()
    beating = Thread(target=_beat, args=(own_connection(), rank, ended), daemon=True)
    beating.start()

    def end() -> None:
        ended.set()
        beating.join(2 * BEAT)  # a connection to a host that is cut off may not return

    # Python kills threads that are still running at exit. A thread killed inside the store crashes the process.
    atexit.register(end)


def _beat(store: torch.distributed.Store, rank: int, ended: Event) -> None:
    while not ended.is_set():
        try:
            store.add(beats_of(rank), 1)
        except RuntimeError:  # the first process has ended, and the store with it
            return
        ended.wait(BEAT)


def beats_of(rank: int) -> str:
    """Return the key under which the store counts the heartbeats of a process."""
    return f"beats/{rank}"


def own_connection() -> torch.distributed.Store:
    """Return a further connection to the store. One that waits for a reply cannot be used by another thread."""
    return _store().clone()


def _store() -> torch.distributed.Store:
    """Return the key-value store that the processes share."""
    return torch.distributed.group.WORLD.get_group_store()
