"""The recorder marks spikes of the loss, also against the rows that were logged before the run was resumed, and has
answers generated when a reporter shows them."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from qwenvl_train.reporting.reporter import RunInfo
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.run.recorder import Recorder
from qwenvl_train.training.distributed.cpu_group import CpuGroup


def test_a_spike_is_marked_for_every_reporter_and_after_a_resume(tmp_path):
    quiet = [{"step": step, "loss": 2.0 + step % 3 / 100} for step in range(1, 13)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in quiet))
    for start, rows in ((0, [*quiet, {"step": 13, "loss": 9.0}]), (12, [{"step": 13, "loss": 9.0}])):
        seen: list[dict] = []
        reporter = SimpleNamespace(start=lambda info: None, log=seen.append)
        info = RunInfo("run", tmp_path, {}, [], 20, start, {})
        recorder = Recorder(info, True, [reporter], None, None, None)
        recorder.start()
        for row in rows:
            recorder.logged(row)
        assert [row["step"] for row in seen if row.get(SPIKE)] == [13]


@pytest.mark.parametrize(("shows", "answered"), [(False, [0, 4]), (True, [0, 2, 4])])
def test_answers_are_generated_between_the_first_and_the_last_step_if_a_reporter_shows_them(shows, answered, tmp_path):
    steps, told = [], []
    reporter = SimpleNamespace(shows_answers=shows, answered=lambda step, rows: told.append(step))
    recorder = Recorder(RunInfo("run", tmp_path, {}, [], 4, 0, {}), True, [reporter], CpuGroup(1), None, None)
    row = {"id": "a", "source": "a.jsonl", "line": 1, "turn": 1, "images": [], "videos": [], "prompt": "What?"}
    recorder.shown = lambda model, step, sharded: steps.append(step) or [row | {"expected": "Red.", "answer": "Blue."}]
    for step in (0, 2, 4):
        state = SimpleNamespace(global_step=step, max_steps=4)
        accelerator = SimpleNamespace(autocast=nullcontext)
        recorder.evaluated(
            SimpleNamespace(state=state, model=None, is_deepspeed_enabled=False, accelerator=accelerator)
        )
    assert steps == told == answered
