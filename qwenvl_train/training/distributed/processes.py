"""Sets up the processes of a run as the launcher specifies, and lets them agree on values."""

import atexit
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep

import torch
from accelerate import PartialState

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError

_BEATS = "beats of the first process"
_BEAT = 5.0
_SILENCE = 60.0
"""Seconds without a heartbeat after which the first process counts as dead. A busy process may miss some heartbeats."""


def join_processes(config: RunConfig) -> PartialState:
    """Join the process group that the launcher opened. DeepSpeed needs a group even for a single process."""
    if config.deepspeed.stage and "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    # The main process may be busy for long with a report or generated answers.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=1))
    if state.num_processes > 1 and state.is_main_process:
        # The heartbeat has a connection of its own, because a connection that waits for a reply is not free.
        _start_beating(_store().clone())
    if config.deepspeed.stage:
        import deepspeed

        # ZeRO-3 shards weights while they load, which is before accelerate would pass the group to DeepSpeed.
        deepspeed.init_distributed(dist_backend=state.backend, auto_mpi_discovery=False, verbose=False)
    return state


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


def _waiting() -> Iterator[float]:
    """Yield the seconds since the first item, again and again, with pauses of up to one second in between."""
    start, pause = monotonic(), 0.01
    while True:
        yield monotonic() - start
        sleep(pause)
        pause = min(1.0, 2 * pause)


_agreed = count()


def _start_beating(store: torch.distributed.Store) -> None:
    """Send heartbeats from a thread for as long as this process lives, whatever its main thread does."""
    ended = Event()
    beating = Thread(target=_beat, args=(store, ended), daemon=True)
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


def choose_precision(config: RunConfig) -> str:
    wanted = config.train.precision
    cuda = torch.cuda.is_available()
    match wanted:
        case "auto" if not cuda:
            return "fp32"
        case "auto":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        case "bf16" if cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError("train.precision=bf16 is not supported by this GPU; use fp16 or auto.")
        case "fp16" if not cuda:
            raise UserError("train.precision=fp16 needs a GPU; use fp32, bf16 or auto.")
    return wanted
