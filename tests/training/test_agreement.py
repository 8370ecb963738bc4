"""What has to be the same in all processes: a difference ends them all, by one sentence that names process and host."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore

from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed import agreement, store
from qwenvl_train.training.distributed.agreement import refuse_differences, refuse_other_settings, refuse_other_versions

PROCESSES = [SimpleNamespace(num_processes=3, process_index=rank, is_main_process=rank == 0) for rank in range(3)]


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Threads stand for processes, on hosts whose names follow from what they say of themselves."""
    shared = HashStore()
    monkeypatch.setattr(store, "_store", lambda: shared)
    monkeypatch.setattr(store, "_agreed", repeat(0))
    monkeypatch.setattr(store, "_collected", repeat(0))
    monkeypatch.setattr(agreement.socket, "gethostname", lambda: "node7")


def outcomes(check, values) -> list[str]:
    """The error of each process, or an empty text."""

    def run(state, value) -> str:
        try:
            check(state, value)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, PROCESSES, values))


def test_processes_that_are_alike_go_on():
    assert outcomes(lambda state, facts: refuse_differences(state, facts, "."), [{"a": 1, "b": None}] * 3) == [""] * 3


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ({"a": 2, "b": "x"}, "a is 2 in process 2 on host node7, but 1 in process 0 on host node7; do this."),
        (
            {"a": 2, "b": "y"},
            "a (and 1 more) is 2 in process 2 on host node7, but 1 in process 0 on host node7; do this.",
        ),
        ({"a": 1}, "b is not there in process 2 on host node7, but x in process 0 on host node7; do this."),
        (
            {"a": 1, "b": "x", "c": 3},
            "c is 3 in process 2 on host node7, but not there in process 0 on host node7; do this.",
        ),
    ],
)
def test_all_processes_are_told_which_one_differs(theirs, sentence):
    mine = {"a": 1, "b": "x"}
    found = outcomes(lambda state, facts: refuse_differences(state, facts, "do this."), [mine, mine, theirs])
    assert found == [sentence] * 3


def test_a_setting_is_named_by_its_key():
    configs = [compose(["+recipe=sft_lora", f"train.lr={lr}"]).config for lr in ("1e-4", "2e-4", "1e-4")]
    (told, *others) = outcomes(refuse_other_settings, configs)
    assert told.startswith(
        "train.lr is 0.0002 in process 1 on host node7, but 0.0001 in process 0 on host node7; start"
    )
    assert others == [told, told]


@pytest.mark.parametrize(
    ("name", "values", "start"),
    [
        ("package_versions", [{"torch": "2.14"}, {"torch": "2.15"}, {"torch": "2.14"}], "torch is 2.1"),
        ("_digest_of_code", ["one", "other", "one"], "the code of qwenvl-train is o"),
    ],
)
def test_versions_are_those_of_packages_and_of_the_code_itself(name, values, start, monkeypatch):
    found = iter(values)
    monkeypatch.setattr(agreement, name, lambda: next(found))
    told = outcomes(lambda state, _: refuse_other_versions(state), range(3))
    assert told[0].startswith(start)
    assert told == told[:1] * 3
