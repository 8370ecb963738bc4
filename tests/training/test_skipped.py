"""The list of samples that are not trained on."""

import json

import pytest

from qwenvl_train.data.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.training.skipped import Skipped

ONE, TWO, THREE = (Problem("a.jsonl", line, "broken", f"a.jsonl:{line} is broken") for line in (1, 2, 3))


def lines(file) -> list[int]:
    return [json.loads(line)["line"] for line in file.read_text().splitlines()]


def test_each_problem_is_listed_once(tmp_path):
    file = tmp_path / "skipped.jsonl"
    skipped = Skipped([TWO, ONE], most=3, file=file, resumed=False)
    skipped.write()
    assert lines(file) == [1, 2]
    skipped.add([THREE, ONE])
    skipped.add([THREE])
    assert lines(file) == [1, 2, 3]
    assert json.loads(file.read_text().splitlines()[2]) == THREE.as_dict()
    assert skipped.listed() == 3


def test_an_empty_list_is_written(tmp_path):
    Skipped([], most=0, file=tmp_path / "skipped.jsonl", resumed=False).write()
    assert (tmp_path / "skipped.jsonl").read_text() == ""


def test_a_resumed_run_keeps_what_it_had_found(tmp_path):
    file = tmp_path / "skipped.jsonl"
    first = Skipped([ONE], most=3, file=file, resumed=False)
    first.write()
    first.add([THREE])
    Skipped([ONE], most=3, file=file, resumed=True).write()
    assert lines(file) == [1, 3]
    Skipped([ONE], most=3, file=file, resumed=False).write()
    assert lines(file) == [1]


def test_too_many_end_the_run(tmp_path):
    file = tmp_path / "skipped.jsonl"
    with pytest.raises(UserError, match=r"2 rows cannot be used, data\.max_skipped allows 1; one of them: a\.jsonl:2"):
        Skipped([ONE, TWO], most=1, file=file, resumed=False)
    skipped = Skipped([ONE], most=1, file=file, resumed=False)
    skipped.write()
    with pytest.raises(UserError, match="2 rows cannot be used"):
        skipped.add([THREE])
    assert lines(file) == [1, 3]
