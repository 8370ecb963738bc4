"""The head of a stream consists of the rows of its first window, each once, and no others."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.streaming import head as head_module
from qwenvl_train.data.streaming import windows
from qwenvl_train.data.streaming.head import Head, read_head
from qwenvl_train.data.streaming.windows import Planner, State
from qwenvl_train.errors import UserError, message_of
from tests.data.streaming.test_stream import ALL, NONE, Counting, cases, config_of, raw


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(windows, "_SAMPLES", 5)
    monkeypatch.setattr(windows, "_SMALL", 0)


def lines(*rows: dict | None) -> str:
    return "".join(("{" if row is None else json.dumps(row)) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    def written(name: str, *rows: dict | None) -> Path:
        (tmp_path / name).write_text(lines(*rows))
        return tmp_path / name

    return written


def head_of(tmp_path, *entries: Path | dict, tolerated=ALL, **data) -> Head:
    train = tuple(
        SourceConfig(**entry) if isinstance(entry, dict) else SourceConfig(path=str(entry)) for entry in entries
    )
    config = config_of(train=train, **data)
    return read_head(config, Counting(config.data.max_length), tmp_path / "cache", tolerated)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_it_holds_what_the_first_window_does(case):
    windows._SAMPLES = case.window
    planner = Planner(case.entries, Counting(case.config.data.max_length), ALL, case.config, 0, 1)
    window = planner.window(State.beginning(case.entries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "open_entries", lambda data, cache: case.entries)
        head = read_head(case.config, Counting(case.config.data.max_length), Path("/"), ALL)
    usable = head.lengths().usable
    origins = [head.origin(index) for index in range(len(head))]
    assert len(set(origins)) == len(origins)
    assert {origins[index] for index in np.flatnonzero(~usable)} == {(one.source, one.line) for one in window.problems}
    drawn = [one for unit in window.units.values() for one in unit]
    assert {origins[index] for index in np.flatnonzero(usable)} == {one.origin for one in drawn}
    tokens = dict(zip(origins, head.lengths().tokens.tolist(), strict=True))
    assert all(tokens[one.origin] == one.tokens for one in drawn)
    assert head.units.tolist() == [sum(one.tokens for one in window.units[unit]) for unit in sorted(window.units)]


def test_a_row_is_there_as_far_as_one_could_be_made_of_it(write, tmp_path):
    path = write("a.jsonl", raw("a", 3), None, raw("long", 50), {"text": "?"}, raw("b", 4))
    head = head_of(tmp_path, path, max_length=10)
    assert [head.origin(index) for index in range(5)] == [(str(path), line) for line in range(1, 6)]
    assert [head[index].id for index in (0, 2, 4)] == ["a", "long", "b"]
    for index, reason in ((1, "a.jsonl:2 is not valid JSON"), (3, "a.jsonl:4")):
        with pytest.raises(UserError) as raised:
            head[index]
        assert reason in message_of(raised.value)
    assert head.lengths().tokens.tolist() == [3, 0, 0, 0, 4]
    assert [problem.kind for problem in head.lengths().problems] == ["broken", "too long", "broken"]
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not valid JSON"):
        head_of(tmp_path, path, tolerated=NONE)


@pytest.mark.parametrize(
    ("rows", "shown", "whole"),
    [
        ([raw("x", 1)] * 4, 4, True),
        ([raw("x", 1)] * 9, 5, False),
        ([None, raw("x", 1), None], 3, True),
        ([None] * 3, 3, True),
        ([None] * 9, 4, False),  # more than data.max_skipped
    ],
)
def test_whether_there_is_more_is_known(rows, shown, whole, write, tmp_path):
    head = head_of(tmp_path, write("a.jsonl", *rows), max_skipped=3)
    assert (len(head), head.whole) == (shown, whole)
    assert head.extent == ("all rows" if whole else f"the first {shown} rows; the rest is not read")
    assert (head.extent in head.describe()) == (not whole)


def test_an_entry_of_no_use_ends_the_reading(write, tmp_path):
    bad, good = write("bad.jsonl", None), write("good.jsonl", *[raw(str(row), 1) for row in range(9)])
    head = head_of(tmp_path, bad, good)
    assert [head.origin(index) for index in range(len(head))] == [(str(bad), 1)]
    assert head.describe() == [
        f"{bad}: streamed, format not known yet",
        f"{good}: streamed, format not known yet",
        "the first row; the rest is not read",
    ]


def test_files_that_were_not_read_from_have_no_rows(write, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(lines(*[raw(name + str(row), 1) for row in range(6)]))
    short = write("short.jsonl", raw("s", 1))
    head = head_of(tmp_path, {"path": str(folder), "weight": 1.0}, {"path": str(short), "weight": 1.0})
    assert [head[index].id for index in range(len(head))] == ["a0", "s", "a1", "a2"]
    assert head.names() == [str(folder / "a.jsonl"), str(folder / "b.jsonl"), str(short)]
    assert [numbers for _, numbers in head.files()] == [[0, 2, 3], [], [1]]
