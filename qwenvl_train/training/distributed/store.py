"""Values that processes exchange through the key-value store of their launcher, without a collective operation."""

import atexit
from collections.abc import Iterator
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep

import torch
from accelerate import PartialState

_BEATS = "beats of the first process"
_BEAT = 5.0
_SILENCE = 60.0
"""Seconds without a heartbeat after which the first process counts as dead. A busy process may miss some heartbeats."""


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
            if waited > _SILENCE or store.add(f"{key}/read", 0) == state.num_processes - 1:
                return value
    beats, heard = -1, 0.0
    for waited in _waiting():
        if store.check([key]):
            break
        if (now := store.add(_BEATS, 0)) != beats:
            beats, heard = now, waited
        elif waited - heard > _SILENCE:
            raise RuntimeError("the first process has died; see its last output for the reason")
    found = store.get(key).decode()
    store.add(f"{key}/read", 1)
    return found


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


def start_beating() -> None:
    """Send heartbeats from a thread for as long as this process lives, whatever its main thread does."""
    ended = Event()
    # The heartbeat has a connection of its own, because a connection that waits for a reply is not free.
    beating = Thread(target=_beat, args=(_store().clone(), ended), daemon=True)
    beating.start()

    def end() -> None:
        ended.set()
        beating.join()

    # Python kills threads that are still running at exit. A thread killed inside the store crashes the process.
    atexit.register(end)


def _beat(store: torch.distributed.Store, ended: Event) -> None:
    while not ended.is_set():
        store.add(_BEATS, 1)
        ended.wait(_BEAT)


def _store() -> torch.distributed.Store:
    """Return the key-value store that the processes share."""
    return torch.distributed.group.WORLD.get_group_store()
