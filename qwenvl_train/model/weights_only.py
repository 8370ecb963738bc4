"""Keeps files of weights and states from running code while torch reads them. They are pickles, which could otherwise
call any function, and checkpoints may come from others."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_FORCED, _FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_REFUSAL = re.compile(r"weights[ _]only", re.IGNORECASE)
_CALLED = re.compile(r"GLOBAL ([\w.]+)")


@contextmanager
def only_weights(deepspeed: bool) -> Iterator[None]:
    """Let torch.load read only tensors and plain values within the block, even for libraries that ask for more, as
    DeepSpeed does. With `deepspeed`, it also reads the few classes that are in DeepSpeed's states."""
    before = {name: os.environ.pop(name, None) for name in (_FORCED, _FORBIDDEN)}
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(_classes_of_deepspeed() if deepspeed else []):
            yield
    finally:
        del os.environ[_FORCED]
        os.environ |= {name: value for name, value in before.items() if value is not None}


def _classes_of_deepspeed() -> list[type]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def reason_of_refusal(error: BaseException) -> str | None:
    """Return why torch refused to read a file, or None for any other error. Torch's own message explains how to read
    the file nevertheless."""
    text = str(error)
    if not _REFUSAL.search(text):
        return None
    called = _CALLED.search(text)
    return (
        f"one of its files would run code ({called[1]})" if called else "one of its files is damaged or would run code"
    )
