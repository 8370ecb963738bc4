"""Saves a checkpoint after some time, for runs whose steps take so long that a number of steps is hard to choose."""

import time

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qwenvl_train.training.distributed.cpu_group import CpuGroup


class SaveByTime(TrainerCallback):
    """Callback that saves a checkpoint at the end of the first step that ends more than `minutes` after the last
    checkpoint, or after the start of the training."""

    def __init__(self, minutes: float, cpu_group: CpuGroup) -> None:
        self._seconds, self._cpu_group = 60 * minutes, cpu_group

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        self._saved = time.monotonic()

    on_save = on_train_begin

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        # All processes must save at the same step, and their clocks differ.
        if self._cpu_group.any(time.monotonic() - self._saved > self._seconds):
            control.should_save = True
