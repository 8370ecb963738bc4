"""Sets up the processes of a run as the launcher specifies, and chooses the precision in which they compute."""

import ctypes
import os
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread
from time import sleep

import torch
from accelerate import PartialState

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.agreement import refuse_other_settings, refuse_other_versions
from qwenvl_train.training.distributed.store import start_beating

_PR_SET_PDEATHSIG = 1
"""The option of Linux's prctl for the signal that a process gets when its parent dies."""
_LOOK_SECONDS = 1.0


def join_processes(config: RunConfig) -> PartialState:
    """Join the process group that the launcher opened. DeepSpeed needs a group even for a single process.

    Raises:
        UserError: If the processes have different versions or settings. All processes raise it.
    """
    if "LOCAL_RANK" in os.environ:
        _end_with_launcher()
    if config.deepspeed.stage and "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    # The main process may be busy for long with a report or generated answers.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=1))
    if state.num_processes > 1:
        start_beating(state.process_index)
    refuse_other_versions(state)
    refuse_other_settings(state, config)
    if config.deepspeed.stage:
        import deepspeed

        # ZeRO-3 shards weights while they load, which is before accelerate would pass the group to DeepSpeed.
        deepspeed.init_distributed(dist_backend=state.backend, auto_mpi_discovery=False, verbose=False)
    return state


def _end_with_launcher() -> None:
    """Get SIGTERM when the launcher dies. Otherwise this process would go on alone, and keep others from continuing the
    run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        launcher = os.getppid()
        if _is_deepspeed(starter := _parent_of(launcher)):
            Thread(target=_end_with_starter, args=(launcher, starter), daemon=True).start()


def _end_with_starter(launcher: int, starter: int) -> None:
    """Send SIGTERM to this process when the command `deepspeed` dies, which passes no signals on. It starts a second
    process, the launcher, which would not notice."""
    while (parent := _parent_of(launcher)) == starter:
        sleep(_LOOK_SECONDS)
    if parent is not None:  # otherwise the launcher has died, too, and Linux has sent the signal
        os.kill(os.getpid(), signal.SIGTERM)


def _is_deepspeed(pid: int | None) -> bool:
    """Return whether a process is the command `deepspeed`. Other commands may die without an end of the run, such as a
    shell from which DeepSpeed's launcher was started in the background."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name in ("deepspeed", "ds", "deepspeed.launcher.runner") for word in words[:4])


def _parent_of(pid: int) -> int | None:
    try:
        # After the name of the program, which may contain anything, come the state and the number of the parent.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return None


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
