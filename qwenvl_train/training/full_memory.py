"""Explains which micro-batch the memory of the device was too small for, and what the user can do about it."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.wording import many
from qwenvl_train.training.window import Window

_NAMED = 8
"""The largest number of samples that the message names."""


@contextmanager
def naming_full_memory(window: Callable[[], Window], remedy: Callable[[], str]) -> Iterator[None]:
    """Raise UserError instead of torch's error when the device has no more memory inside the `with` block. `window`
    returns the micro-batches of the current step, and `remedy` returns the end of the message."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The rest of torch's message is about settings of its allocator.
        figures = " ".join(str(error).partition("If reserved but unallocated")[0].split()).rstrip(".")
        failure = UserError(f"Memory ran out {_place(window())}. ({figures}.) {remedy()}")
        failure.on_every_process = False
        raise failure from error


def plan_command(config: Path, processes: int) -> str:
    """Return a sentence with the command that plans the run of a config.yaml on the devices of this host."""
    words = ["qwenvl-train", "plan", f"+recipe={config}", f"plan.devices={processes}"]
    if torch.cuda.is_available():
        words.append(f"plan.device_gib={torch.cuda.mem_get_info()[1] / 2**30:.1f}")
    return f"For the cheapest change that makes the run fit: {shlex.join(words)}"


def _place(window: Window) -> str:
    micro_batch = window.current
    if micro_batch is None:
        return f"after the micro-batches of step {window.step}" if window.step else "before the first step"
    names = [f"{source}:{line}" for source, line in micro_batch.origins]
    more = f" and {many(len(names) - _NAMED, 'more sample')}" if len(names) > _NAMED else ""
    number = f"in step {window.step}, at micro-batch {len(window.losses) + 1} of {len(window.micro_batches)}"
    return (
        f"{'in the rehearsal of the largest micro-batch' if window.rehearsal else number} with "
        f"{many(micro_batch.tokens, 'token')} and {many(micro_batch.patches, 'patch')}: "
        f"{', '.join(names[:_NAMED])}{more}"
    )
