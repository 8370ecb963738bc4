"""A run folder has one writer."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from qwenvl_train.cli import main
from qwenvl_train.errors import UserError
from qwenvl_train.holder import Holder, holder_of, in_use, start_of
from qwenvl_train.run import lock
from qwenvl_train.run.lock import locked

START = ("tune_mm_mlp=true", "run_name=run", "logging.wandb.mode=disabled")


def write(folder: Path, **holder) -> None:
    folder.mkdir(exist_ok=True)
    values = {"host": socket.gethostname(), "pid": os.getpid(), "started": None, **holder}
    (folder / ".lock").write_text(json.dumps(values))


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def living():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def test_a_lock_is_gone_at_the_end_and_so_is_an_empty_folder(tmp_path):
    folder = tmp_path / "runs" / "mine"
    with locked(folder):
        assert holder_of(folder) == Holder.this()
        with locked(folder):  # the command holds it around the run
            pass
        assert in_use(folder)
    assert not (tmp_path / "runs").exists()
    folder.mkdir(parents=True)
    (folder / "kept.txt").touch()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    assert [path.name for path in folder.iterdir()] == ["kept.txt"]


def test_the_second_start_is_refused(tmp_path, living, capsys):
    write(tmp_path / "run", pid=living, started=start_of(living))
    assert main([*START, f"output_dir={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/run is in use by process {living} on this machine; wait until it ends, or choose" in told
    assert holder_of(tmp_path / "run").pid == living


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path, ended, capsys):
    write(tmp_path, pid=ended)
    assert not in_use(tmp_path)
    with locked(tmp_path):
        assert holder_of(tmp_path) == Holder.this()
    assert capsys.readouterr().out == f"{tmp_path}: took over the lock of process {ended}, which has ended\n"


def test_another_process_with_the_number_of_an_ended_one_is_not_taken_for_it(tmp_path, living):
    write(tmp_path, pid=living, started="1")
    with locked(tmp_path):
        assert holder_of(tmp_path) == Holder.this()


def test_a_lock_of_another_host_is_refused_and_named(tmp_path, ended):
    write(tmp_path, host="gpu-07", pid=ended)
    assert in_use(tmp_path)
    expected = f"{tmp_path} is in use by process {ended} on host gpu-07. If that run has ended, delete {tmp_path}/.lock"
    with pytest.raises(UserError) as raised, locked(tmp_path):
        pass
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize(
    ("job", "restarts", "taken"), [("4711", "1", True), ("4711", "0", False), ("4712", "1", False)]
)
def test_a_slurm_job_that_is_queued_again_takes_over_its_own_lock(job, restarts, taken, tmp_path, monkeypatch):
    """Also on another host, since the first one may be lost."""
    write(tmp_path, host="gpu-07", pid=1, job="4711", restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    refused = pytest.raises(UserError, match="in use by process 1 on host gpu-07")
    with nullcontext() if taken else refused, locked(tmp_path):
        assert holder_of(tmp_path) == Holder.this()


def test_a_lock_that_cannot_be_read_is_refused_and_named(tmp_path):
    (tmp_path / ".lock").write_text("{")
    with pytest.raises(UserError, match=r"\.lock cannot be read; if no run uses .* delete this file"), locked(tmp_path):
        pass


def test_a_lock_that_another_start_has_just_taken_over_is_put_back(tmp_path, ended):
    """Both have seen the stale lock, and the other one was faster."""
    stale = Holder(socket.gethostname(), ended, None)
    write(tmp_path, pid=os.getpid())
    fresh = holder_of(tmp_path)
    assert not lock._removed(tmp_path / ".lock", stale)
    assert holder_of(tmp_path) == fresh
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
