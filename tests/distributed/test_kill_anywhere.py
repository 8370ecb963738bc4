"""A run that is killed at any point goes on to the same end: the same losses, no sample twice and none missed.

SIGKILL cannot be caught, so that nothing is cleaned up: not a checkpoint that is being written, nor a cache.
"""

import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import rows, summary
from tests.distributed.hosts import BIN
from tests.distributed.started_again import StartedAgain

pytestmark = pytest.mark.distributed

STEPS = 24


@pytest.fixture(scope="module")
def settings(files, checkpoints) -> list[str]:
    return [
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={files['mixed']}",
        "data.packing=false", "data.workers=1", f"train.max_steps={STEPS}", "train.accumulation=2", "train.log_steps=1",
        "train.save_steps=2", "train.lr=1e-3", "train.warmup=0", "train.keep=2", "logging.predictions=0",
        "lora.dropout=0.1", "data.eval=null", "run_name=run",
    ]  # fmt: skip


def curve(folder: Path) -> list[tuple]:
    return [(row["step"], row["samples"], row["tokens"], row["loss"], row["grad_norm"]) for row in rows(folder)]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> list[tuple]:
    """The curve of the run that nobody kills. It is in a process of its own, too, with as many threads."""
    run = StartedAgain(tmp_path_factory.mktemp("whole"), settings)
    run.finish()
    return curve(run.folder)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


def worker(process: subprocess.Popen) -> int:
    """The data worker of a run without a launcher, or the run itself if it has none yet."""
    return (children(process.pid) or [process.pid])[-1]


def after(seconds: float) -> Callable[[], bool]:
    start = time.monotonic()
    return lambda: time.monotonic() - start > seconds


def at(run: StartedAgain, steps: int) -> Callable[[], bool]:
    """Some steps after those that the run has done so far."""
    step = run.step() + steps
    return lambda: run.step() >= step


def test_a_run_that_is_killed_five_times_joins_its_curve(settings, whole, tmp_path):
    run = StartedAgain(tmp_path / "a", settings)
    assert run.kill(run.caches) == -signal.SIGKILL
    assert run.kill(lambda: run.step() >= 3 and run.saves()) == -signal.SIGKILL
    first = run.step()
    assert run.kill(lambda: run.step() > first + 4, whom=worker) == 2
    assert run.kill(lambda: run.step() >= 14, whom=lambda process: process.pid) == -signal.SIGKILL
    assert run.kill(lambda: run.step() >= 18 and run.saves()) == -signal.SIGKILL
    run.finish()
    assert curve(run.folder) == whole
    assert summary(run.folder)["status"] == "done"
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"step-22", "step-24"}
    assert not (run.folder / ".staging").exists()


@pytest.mark.nightly
def test_processes_end_with_their_launcher(settings, tmp_path):
    """They save, and the same command goes on. Two processes, of which first the launcher and then one is killed."""
    launcher = (str(BIN / "torchrun"), "--standalone", "--nproc_per_node", "2", "-m", "qwenvl_train")
    two = [*settings, "train.batch_size=1"]
    run = StartedAgain(tmp_path / "a", two, launcher)
    assert run.kill(lambda: run.step() >= 5, whom=lambda process: process.pid) == -signal.SIGKILL
    until = time.monotonic() + 120
    while not (run.folder / "summary.json").is_file() or summary(run.folder)["status"] != "interrupted":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert run.kill(lambda: run.step() >= 12, whom=lambda process: random.choice(children(process.pid))) == 1
    told = run.finish()
    assert re.search("resum|from step", told)
    other = StartedAgain(tmp_path / "b", two, launcher)
    other.finish()
    assert curve(run.folder) == curve(other.folder)


@pytest.mark.nightly
def test_runs_that_are_killed_twenty_times_join_their_curve(settings, whole, tmp_path):
    """At random points, from the start of the interpreter on. A run that ends before it is killed makes way for
    another one."""
    chance, kills = random.Random(0), 0
    run = StartedAgain(tmp_path / "0", settings)
    while kills < 20:
        when = chance.choice([after(chance.uniform(1, 20)), at(run, chance.randint(1, 3)), run.saves])
        if run.kill(when, whom=worker if chance.random() < 0.2 else None):
            kills += 1
        else:
            assert curve(run.folder) == whole
            run = StartedAgain(tmp_path / str(kills), settings)
    run.finish()
    assert curve(run.folder) == whole
