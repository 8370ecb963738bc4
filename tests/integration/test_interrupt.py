"""A run that is told to stop saves first, and goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest
from transformers import TrainerControl

from qwenvl_train.training import interrupt
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.interrupt import StopOnSignal
from tests.commands import rows, summary
from tests.conftest import conversation


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [
        pytest.param(signal.SIGUSR1, 143, 1, marks=pytest.mark.nightly),
        (signal.SIGTERM, 143, 1),
        pytest.param(signal.SIGINT, 130, 0, marks=pytest.mark.nightly),
        pytest.param(signal.SIGHUP, 143, 1, marks=pytest.mark.nightly),
        pytest.param("closed output", 143, 0, marks=pytest.mark.nightly),
    ],
)
def test_a_run_that_has_to_stop_saves_first(number, code, workers, write_rows, checkpoints, pictures, tmp_path):
    data = write_rows([conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))])
    command = [
        sys.executable, "-m", "qwenvl_train", "tune_mm_mlp=true", f"model.path={checkpoints['qwen2_5_vl']}",
        f"data.train={data}", f"data.workers={workers}", "train.max_steps=100000", "train.log_steps=1",
        "data.packing=false", "train.accumulation=1", f"output_dir={tmp_path}", "run_name=r",
        "logging.wandb.mode=disabled",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        env=os.environ,
        stdout=subprocess.PIPE if number == "closed output" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    metrics = tmp_path / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if number == "closed output":
        process.stdout.close()
    else:
        os.killpg(process.pid, number)  # as a terminal and schedulers send it, workers included
    assert process.wait(timeout=60) == code, process.stderr.read().decode()
    told = summary(tmp_path / "r")
    assert told["status"] == "interrupted"
    assert told["checkpoint"].endswith(f"step-{told['steps']}")
    state = json.loads((tmp_path / "r" / "checkpoints" / f"step-{told['steps']}" / "trainer_state.json").read_text())
    assert state["global_step"] == told["steps"] >= rows(tmp_path / "r")[-1]["step"]


def test_a_run_that_cannot_save_in_time_ends_without(monkeypatch, capfd):
    ended = Event()
    monkeypatch.setattr(interrupt.os, "_exit", lambda code: (codes.append(code), ended.set()))
    codes, stop = [], StopOnSignal(CpuGroup(1), grace_seconds=0.2)
    stop.catch()
    signal.raise_signal(signal.SIGUSR1)
    assert ended.wait(10)
    stop.restore()
    assert codes == [143]
    assert "longer than train.grace_seconds=0.2 since the signal" in capfd.readouterr().err
    stop = StopOnSignal(CpuGroup(1), grace_seconds=0.2)
    stop.catch()
    signal.raise_signal(signal.SIGTERM)
    stop.restore()  # it has saved in time
    time.sleep(0.6)
    assert codes == [143]


def test_a_signal_may_come_after_another_process_has_told_of_it(monkeypatch):
    """Schedulers do not signal all hosts in the same moment, and DeepSpeed's launcher waits for one process before it
    signals the next one."""
    group = CpuGroup(1)
    monkeypatch.setattr(group, "any", lambda mine: True)
    control = TrainerControl()
    stop = StopOnSignal(group, grace_seconds=60)
    stop.catch()
    stop.on_step_end(None, None, control)
    assert control.should_save
    assert control.should_training_stop
    signal.raise_signal(signal.SIGTERM)
    stop.restore()
    assert stop.received == signal.SIGTERM


def test_only_a_further_interrupt_of_the_user_ends_the_run_at_once(monkeypatch):
    """A closed terminal is told of twice: by SIGHUP, and by its end. A scheduler sends SIGTERM after SIGUSR1."""
    left = []
    monkeypatch.setattr(interrupt, "_reader_has_ended", lambda output: output == 1)
    monkeypatch.setattr(interrupt.os, "dup2", lambda new, old: left.append(old))
    stop, control = StopOnSignal(CpuGroup(1), grace_seconds=60), TrainerControl()
    stop.catch()
    try:
        signal.raise_signal(signal.SIGHUP)
        stop._since -= 60
        signal.raise_signal(signal.SIGTERM)
        stop.on_step_end(None, None, control)
        assert (control.should_save, control.should_training_stop, left) == (True, True, [1])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop.restore()


def test_an_output_that_is_closed_during_an_evaluation_is_left_before_its_figures_are_printed(monkeypatch):
    left = []
    monkeypatch.setattr(interrupt, "_reader_has_ended", lambda output: output == 2)
    monkeypatch.setattr(interrupt.os, "dup2", lambda new, old: left.append(old))
    stop, control = StopOnSignal(CpuGroup(1), grace_seconds=60), TrainerControl()
    stop.on_log(None, None, control)
    stop.restore()
    assert (stop.received, left) == (signal.SIGTERM, [2])
