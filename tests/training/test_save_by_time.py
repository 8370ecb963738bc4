"""Checkpoints by time: at the end of the first step after the time, and anew after each checkpoint."""

from transformers import TrainerControl, TrainerState

from qwenvl_train.training import save_by_time
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.save_by_time import SaveByTime


def test_the_time_counts_from_the_last_checkpoint(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(save_by_time.time, "monotonic", lambda: now)
    callback, found = SaveByTime(2, CpuGroup(1)), []
    callback.on_train_begin(None, None, None)
    for seconds in (60, 61, 60, 30, 31, 300):
        now += seconds
        control = TrainerControl()
        if seconds == 30:
            callback.on_save(None, None, None)  # as after save_steps
        callback.on_step_end(None, TrainerState(), control)
        found.append(control.should_save)
        if control.should_save:
            callback.on_save(None, None, None)
    assert found == [False, True, False, False, False, True]
