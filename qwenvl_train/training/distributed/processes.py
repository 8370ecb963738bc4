"""Sets up the processes of a run as the launcher specifies, and chooses the precision in which they compute."""

import ctypes
import os
import signal
import socket
import sys
from datetime import timedelta

import torch
from accelerate import PartialState

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.agreement import refuse_other_settings, refuse_other_versions
from qwenvl_train.training.distributed.store import start_beating

_PR_SET_PDEATHSIG = 1
"""The option of Linux's prctl for the signal that a process gets when its parent dies."""


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
