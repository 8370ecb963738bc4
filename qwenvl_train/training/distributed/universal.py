"""Loads a checkpoint of DeepSpeed on another number of processes than the one it was written by.

DeepSpeed divides weights and optimizer state among the processes. Its universal form holds them by parameter instead.
"""

import shutil
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qwenvl_train.errors import UserError
from qwenvl_train.model.weights_only import reason_of_refusal
from qwenvl_train.training.distributed.store import call_on_main


def needs_conversion(checkpoint: Path, processes: int) -> bool:
    """Return whether a checkpoint of DeepSpeed was written by another number of processes."""
    states = len(list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt")))
    return states > 0 and states != processes


def converted(checkpoint: Path, folder: Path, state: PartialState) -> Path:
    """Return a copy of a checkpoint in the universal form, for all processes. The main process makes it.

    Args:
        folder: The folder of the copy, which does not exist. Files that stay the same are links to those of the
            checkpoint.
    """
    call_on_main(state, lambda: _convert(checkpoint, folder))
    return folder


def _convert(checkpoint: Path, folder: Path) -> None:
    from deepspeed.checkpoint.ds_to_universal import main

    (divided,) = checkpoint.glob("global_step*")
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path != divided:
            (folder / path.name).symlink_to(path.absolute())
    told = StringIO()
    try:
        with redirect_stdout(told), redirect_stderr(told):
            main(
                Namespace(
                    input_folder=str(divided),
                    output_folder=str(folder / divided.name),
                    num_extract_workers=1,
                    num_merge_workers=1,
                    keep_temp_folder=False,
                    strict=True,
                    inject_missing_state=True,
                )
            )
    except Exception as error:
        raise UserError(
            f"{checkpoint} cannot be divided for another number of processes: {reason_of_refusal(error) or error}. "
            "Resume with the number that it was written by."
        ) from error


class UniversalCheckpoint(TrainerCallback):
    """Callback that completes what DeepSpeed has loaded from the universal form, and deletes that form.

    DeepSpeed gives all groups of parameters the settings of the first one. The trainer's groups differ in learning rate
    and weight decay. ZeRO-3 also gives all parameters one tensor as their number of steps, which each of them would
    count up.
    """

    def __init__(self, folder: Path, state: PartialState, groups: Callable[[], list[dict[str, Any]]]) -> None:
        """`groups` returns the settings of each group of parameters as the optimizer was made with them."""
        self._folder, self._state, self._groups = folder, state, groups

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        rates = kwargs["lr_scheduler"].get_last_lr()
        for group, settings, rate in zip(kwargs["optimizer"].param_groups, self._groups(), rates, strict=True):
            group.update(settings, lr=rate, initial_lr=settings["lr"])
        for moments in kwargs["optimizer"].state.values():
            moments["step"] = moments["step"].clone()
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            shutil.rmtree(self._folder)
