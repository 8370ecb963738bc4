"""A scheduler's signals end a run of two processes with a checkpoint, under each launcher, and its command goes on.

Some schedulers signal the command that they have started, and others all of its processes. docs/distributed.md says
what each launcher does. tests/integration/test_interrupt.py has runs without a launcher.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import QUIET, summary, train
from tests.distributed.curves import SHORT, assert_same_curve, figures
from tests.distributed.hosts import BIN, ROOT
from tests.distributed.started_again import StartedAgain, free_port

pytestmark = pytest.mark.distributed

STEPS = 24
EVERY = 3
"""The number of steps after which a run gets a signal, since it was started."""
SCRIPTS = ROOT / "scripts" / "launch"
TORCHRUN = (str(BIN / "torchrun"), "--standalone", "--nproc_per_node=2", "-m", "qwenvl_train")
DEEPSPEED = (
    str(BIN / "deepspeed"), "--master_port={port}", "--num_accelerators=2", "--no_local_rank", "--module",
    "qwenvl_train",
)  # fmt: skip

SRUN = """#!/usr/bin/env bash
# Starts one task, passes SIGTERM on to it, and ends when it has ended, as srun does.
shift
SLURM_NODEID=0 "$@" &
trap 'kill -TERM $!' TERM
code=0
wait $! || code=$?
while kill -0 $! 2>/dev/null; do code=0; wait $! || code=$?; done
exit "$code"
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1" = show ] && echo 127.0.0.1 || echo "$*" >>"$CALLS"
"""


@pytest.fixture(scope="module")
def settings(files, checkpoints) -> list[str]:
    return [
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={files['mixed']}",
        f"data.eval={files['mixed']}", *SHORT, QUIET, f"train.max_steps={STEPS}", "train.lr=1e-3", "train.lr_mlp=3e-3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> list[tuple]:
    """The curve of a run that nobody ends, on one process."""
    return figures(train(tmp_path_factory.mktemp("whole"), *settings, "train.batch_size=4"))


@pytest.fixture
def two(settings) -> list[str]:
    return [*settings, "train.batch_size=2"]


def to_command(number: int) -> Callable[[subprocess.Popen], None]:
    """As srun and Kubernetes send it."""
    return lambda process: os.kill(process.pid, number)


def to_all(number: int) -> Callable[[subprocess.Popen], None]:
    """As a terminal sends it, and SLURM, depending on its settings."""
    return lambda process: os.killpg(process.pid, number)


@dataclass(frozen=True)
class Launcher:
    command: tuple[str, ...]
    sent: tuple[tuple[Callable[[subprocess.Popen], None], int], ...]
    """What is sent to one start after another, and the exit code of the command."""
    settings: tuple[str, ...] = ()


LAUNCHERS = {
    "deepspeed": Launcher(
        DEEPSPEED,
        ((to_command(signal.SIGTERM), -signal.SIGTERM),),
        ("deepspeed=zero2",),
    ),
    "deepspeed by all ways": Launcher(
        DEEPSPEED,
        (
            (to_all(signal.SIGTERM), -signal.SIGTERM),
            (to_command(signal.SIGUSR1), -signal.SIGUSR1),
            (to_all(signal.SIGUSR1), -signal.SIGUSR1),
        ),
        ("deepspeed=zero3", "deepspeed.whole_elements=0"),
    ),
    "torchrun": Launcher(
        TORCHRUN,
        (
            (to_command(signal.SIGTERM), 1),
            (to_all(signal.SIGTERM), 1),
            # It does not know this signal, and dies. Its processes save.
            (to_command(signal.SIGUSR1), -signal.SIGUSR1),
            (to_all(signal.SIGUSR1), -signal.SIGUSR1),
        ),
    ),
    "torchrun by our script": Launcher(
        ("bash", str(SCRIPTS / "one_host.sh")), ((to_command(signal.SIGUSR1), 1), (to_all(signal.SIGUSR1), 1))
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "deepspeed" else pytest.mark.nightly) for name in LAUNCHERS]
)
def test_a_signal_ends_both_processes_with_a_checkpoint(name, two, whole, tmp_path):
    launcher = LAUNCHERS[name]
    port = free_port()
    command = tuple(word.format(port=port) for word in launcher.command)
    words = [*two, *launcher.settings, "run_name=run"]
    run, reached = StartedAgain(tmp_path, words, command, {"GPUS": "2", "PORT": str(port)}), 0
    for send, code in launcher.sent:
        goal = reached + EVERY
        assert run.end(lambda goal=goal: run.step() >= goal, send) == code, run.log()[-5000:]
        reached = run.interrupted()
        assert goal <= reached < STEPS
    run.finish()
    assert_joined(run.folder, whole)


@pytest.mark.nightly
def test_a_slurm_job_goes_on_by_itself(two, whole, tmp_path):
    """SLURM signals the script alone when the time is nearly up, and starts it again after `scontrol requeue`."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    job = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2",
        "PORT": str(free_port()), "CALLS": str(calls), "PATH": f"{folder}:{BIN}:{os.environ['PATH']}",
    }  # fmt: skip
    run = StartedAgain(tmp_path, two, ("bash", str(SCRIPTS / "slurm.sbatch")), job, name="job-4711")
    assert run.end(lambda: run.step() >= EVERY, to_command(signal.SIGUSR1)) == 1, run.log()[-5000:]
    assert calls.read_text() == "requeue 4711\n"
    assert EVERY <= summary(run.folder)["steps"] == run.interrupted() < STEPS
    # As if the job had been killed on another host, which is lost.
    lock = {"host": "lost", "pid": 1, "started": None, "job": "4711", "restarts": 0}
    (run.folder / ".lock").write_text(json.dumps(lock), encoding="utf-8")
    run.env["SLURM_RESTART_COUNT"] = "1"
    run.finish()
    assert calls.read_text() == "requeue 4711\n"
    assert_joined(run.folder, whole)


def assert_joined(run: Path, whole: list[tuple]) -> None:
    assert summary(run)["status"] == "done"
    assert len(whole) == STEPS
    assert_same_curve(figures(run), whole)
