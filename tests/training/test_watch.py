"""A run ends by itself when a process of it is lost or when nothing happens, and says so."""

from contextlib import ExitStack
from threading import Event, Thread
from time import monotonic, sleep
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore

from qwenvl_train.errors import LostProcess
from qwenvl_train.training.distributed import store, watch
from qwenvl_train.training.distributed.watch import Watch, naming_lost_processes


class Ended(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def shared(monkeypatch) -> HashStore:
    """Threads stand for processes, and share a store."""
    found = HashStore()
    monkeypatch.setattr(store, "BEAT", 0.05)
    monkeypatch.setattr(store, "SILENCE", 0.6)
    monkeypatch.setattr(watch, "own_connection", lambda: found)
    return found


@pytest.fixture
def ended(monkeypatch) -> dict[str, int]:
    """The exit codes of the threads that have ended the process."""
    codes: dict[str, int] = {}

    def end(code: int) -> None:
        codes[str(monotonic())] = code
        raise Ended

    monkeypatch.setattr(watch.os, "_exit", end)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    return codes


def process(rank: int, processes: int = 2) -> SimpleNamespace:
    return SimpleNamespace(process_index=rank, num_processes=processes, is_local_main_process=True)


def beating(shared: HashStore, rank: int) -> Event:
    stop = Event()
    Thread(target=store._beat, args=(shared, rank, stop), daemon=True).start()
    return stop


def wait_for(condition, seconds: float = 10) -> None:
    start = monotonic()
    while not condition():
        assert monotonic() - start < seconds
        sleep(0.02)


def test_processes_that_beat_and_progress_are_left_alone(shared, ended, capfd):
    stops = [beating(shared, rank) for rank in (0, 1)]
    watches = [Watch(process(rank), 1.0, lambda: "") for rank in (0, 1)]
    with watches[0], watches[1]:
        for _ in range(30):
            sleep(0.05)
            for each in watches:
                each.progress()
    for stop in stops:
        stop.set()
    sleep(3 * store.SILENCE)
    assert not ended
    assert capfd.readouterr().err == ""


def test_a_lost_process_ends_the_others_with_its_name(shared, ended, capfd):
    beating(shared, 0)
    beating(shared, 1)
    lost = beating(shared, 2)
    shared.set("watch/host/2", "node7")
    with Watch(process(0, 3), None, lambda: "Go on."), Watch(process(1, 3), None, lambda: "Go on."):
        sleep(2 * store.SILENCE)
        assert not ended
        lost.set()
        wait_for(lambda: len(ended) == 2)
    reason = "process 2 on host node7 has not been heard of for 1s: it was killed, or a host is down or cut off. Go on."
    assert capfd.readouterr().err.count(f"qwenvl-train: {reason}\n") == 2
    assert set(ended.values()) == {1}


def test_the_others_notice_that_the_first_one_is_silent(shared, ended, capfd):
    """The store answers, since the launcher has it, but the process does not send heartbeats any more."""
    first = beating(shared, 0)
    beating(shared, 1)
    with Watch(process(1), None, lambda: ""):
        sleep(2 * store.SILENCE)
        assert not ended
        first.set()
        wait_for(lambda: len(ended) == 1)
    assert "process 0 on host unknown has not been heard of for 1s" in capfd.readouterr().err


@pytest.mark.parametrize("silent", ["it answers nothing", "it is gone"])
def test_a_process_that_cannot_reach_the_first_one_ends(silent, shared, ended, capfd, monkeypatch):
    """A host that is cut off gets no answer, and one whose first process is gone gets an error."""
    beating(shared, 0)
    with Watch(process(1), None, lambda: ""):
        sleep(2 * store.BEAT)

        def fail(*_):
            if silent == "it is gone":
                raise RuntimeError("Connection reset by peer")
            Event().wait(60)

        monkeypatch.setattr(HashStore, "add", fail)
        wait_for(lambda: len(ended) == 1)
    assert "process 0 cannot be reached any more from process 1 on host" in capfd.readouterr().err


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stall_prints_what_each_process_does(processes, shared, ended, capfd):
    with ExitStack() as stack:
        for rank in range(processes):
            beating(shared, rank)
            stack.enter_context(Watch(process(rank, processes), 0.4, lambda: "Go on."))
        wait_for(lambda: len(ended) >= processes)
    told = capfd.readouterr().err
    for rank in range(processes):
        assert f"process {rank} on host" in told
    assert "test_watch.py" in told
    assert "nothing has happened in process" in told
    assert "(train.stall_seconds). The stacks of all processes are above. Go on." in told
    assert set(ended.values()) == {1}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:4", True),
        ("NCCL communicator was aborted on rank 1.", True),
        ("shape mismatch", False),
    ],
)
def test_a_lost_connection_is_named(text, named):
    with pytest.raises(LostProcess if named else RuntimeError) as caught, naming_lost_processes(lambda: "Go on."):
        raise RuntimeError(text)
    assert (type(caught.value) is LostProcess) == named
    if named:
        assert "Go on." in str(caught.value)
        assert text in str(caught.value)
        assert caught.value.exit_code == 1
