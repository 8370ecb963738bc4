"""What one process tells the others: they wait for as long as it lives, and no longer."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from threading import Event, Thread
from time import monotonic, sleep
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore

from qwenvl_train.training.distributed import store as module
from qwenvl_train.training.distributed.store import agree

MAIN, OTHER = (SimpleNamespace(num_processes=2, is_main_process=main) for main in (True, False))


@pytest.fixture
def store(monkeypatch) -> HashStore:
    """Threads stand for processes."""
    store = HashStore()
    monkeypatch.setattr(module, "_store", lambda: store)
    monkeypatch.setattr(module, "_agreed", repeat(0))
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "SILENCE", 0.5)
    return store


def test_a_process_alone_asks_nobody():
    assert agree(SimpleNamespace(num_processes=1), "mine") == "mine"


def test_the_others_wait_for_as_long_as_the_first_lives(store):
    Thread(target=module._beat, args=(store, 0, Event()), daemon=True).start()
    with ThreadPoolExecutor() as pool:
        told = pool.submit(agree, OTHER, "")
        sleep(3 * module.SILENCE)
        assert not told.done()
        assert agree(MAIN, "its own, with an é") == "its own, with an é"
        assert told.result() == "its own, with an é"


@pytest.mark.parametrize("beats", [0, 7])
def test_the_others_do_not_wait_for_a_dead_one(beats, store):
    store.add(module.beats_of(0), beats)
    start = monotonic()
    with pytest.raises(RuntimeError, match="the first process has died"):
        agree(OTHER, "")
    assert module.SILENCE < monotonic() - start < 10 * module.SILENCE


def test_the_first_does_not_leave_before_the_others_have_read(store, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 30)
    with ThreadPoolExecutor() as pool:
        told = pool.submit(agree, MAIN, "mine")
        sleep(0.2)
        assert not told.done()
        assert agree(OTHER, "") == told.result() == "mine"


def test_the_first_does_not_wait_for_a_dead_one(store):
    assert agree(MAIN, "mine") == "mine"
