"""What was judged is never judged again, whatever happens between the calls."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qwenvl_train.curation.judging import store as module
from qwenvl_train.curation.judging.classes import read_tree
from qwenvl_train.curation.judging.engine import Answered, Asked
from qwenvl_train.curation.judging.judge import StoredJudge
from qwenvl_train.curation.judging.prompts import Choice, score_choice
from qwenvl_train.curation.judging.store import JudgementStore, content_of, key_of
from qwenvl_train.curation.view import RowView
from qwenvl_train.errors import UserError
from tests.conftest import conversation, sample_of
from tests.curation.judges import ALL, TinyJudge, sections_with

RED = ("assistant", ["Red."])


class Counting:
    """An engine that counts what it is asked, and fails at a row."""

    identity, all_at_once, proven = "counting", True, False

    def __init__(self, fails_at: int | None = None):
        self.asked: list[tuple[str, int]] = []
        self.fails_at = fails_at

    def answers(self, rows: Sequence[Asked]) -> Iterator[list[Answered]]:
        for row in rows:
            if len(self.asked) == self.fails_at:
                raise UserError("The server is down.")
            self.asked.append((row.sample.id, len(row.prompts)))
            yield [Answered(row.number, tuple(self._figures(prompt) for prompt in row.prompts))]

    def _figures(self, prompt) -> tuple[float, ...]:
        return (-1.0,) * len(prompt.options) if isinstance(prompt, Choice) else (-1.0, -2.0)


def judged(engine, folder: Path, rows: list[dict], sections=ALL):
    judge = StoredJudge(engine, sections, read_tree(None, "tree"), JudgementStore(folder))
    return judge.judge([RowView(sample_of(row)) for row in rows])


def rows_about(pictures) -> list[dict]:
    return [conversation(("user", [path, "What?"]), RED, id=str(number)) for number, path in enumerate(pictures)]


def test_a_second_run_computes_nothing_and_loads_no_weights(checkpoints, pictures, tmp_path):
    first = TinyJudge(checkpoints["qwen2_5_vl"], tmp_path, ALL)
    found = first(*rows_about(pictures))
    assert (first.loads, len(first.passes.tokens)) == (1, 1)
    second = TinyJudge(checkpoints["qwen2_5_vl"], tmp_path, ALL)
    assert second(*rows_about(pictures)) == found
    assert second.loads == 0
    changed = sections_with(classes__use="drop", needless_image__max_gain=9.0, needless_image__use="mark")
    third = TinyJudge(checkpoints["qwen2_5_vl"], tmp_path, changed)
    assert [one.assigned for one in third(*rows_about(pictures))] == [one.assigned for one in found]
    assert third.loads == 0  # thresholds are not part of a question


def test_only_what_is_new_is_asked(pictures, tmp_path):
    rows = rows_about(pictures)
    judged(engine := Counting(), tmp_path, rows[:2])
    assert engine.asked == [("0", 18), ("1", 18)]
    more = sections_with(scores__use="drop", scores__answer_clarity__prompt="How clear? 1 to 5")
    judged(engine := Counting(), tmp_path, rows, more)
    assert engine.asked == [("0", 1), ("1", 1), ("2", 8), ("3", 8)]


def test_an_error_loses_nothing(pictures, tmp_path):
    with pytest.raises(UserError, match="down"):
        judged(first := Counting(fails_at=3), tmp_path, rows_about(pictures))
    judged(second := Counting(), tmp_path, rows_about(pictures))
    assert [name for name, _ in (*first.asked, *second.asked)] == ["0", "1", "2", "3"]


def test_a_row_is_known_by_its_content(pictures, tmp_path):
    picture = tmp_path / "a.png"
    shutil.copy(pictures[0], picture)
    row = conversation(("user", [picture, "What?"]), RED)
    content = content_of(sample_of(row))
    moved = conversation(("user", [Path(shutil.copy(picture, tmp_path / "b.png")), "What?"]), RED, id="moved")
    assert content_of(sample_of(moved)) == content
    inside = sample_of(row)
    image = replace(inside.turns[0].parts[0], content=picture.read_bytes())
    inside = replace(
        inside, turns=(replace(inside.turns[0], parts=(image, *inside.turns[0].parts[1:])), inside.turns[1])
    )
    assert content_of(inside) == content
    shutil.copy(pictures[1], picture)  # another picture under the same name
    assert content_of(sample_of(row)) != content
    for other in (("user", [picture, "Why?"]), ("user", ["What?", picture]), ("user", ["What?"])):
        assert content_of(sample_of(conversation(other, RED))) != content_of(sample_of(row))
    keys = {key_of(judge, score_choice(text), content) for judge in "ab" for text in "cd"}
    assert len(keys) == 4


WRITER = """
import sys
from pathlib import Path
from qwenvl_train.curation.judging.store import JudgementStore
store = JudgementStore(Path(sys.argv[1]))
for group in range(10**6 if sys.argv[3] == "forever" else int(sys.argv[3])):
    store.write({f"{sys.argv[2]} {group} {number}".encode(): (float(number),) for number in range(50)})
    print(group, flush=True)
"""


def writer(folder: Path, name: str, groups: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, groups], stdout=subprocess.PIPE, text=True
    )


def groups_of(folder: Path, name: str, groups: int) -> list[int]:
    """The number of stored figures of each group."""
    store = JudgementStore(folder)
    return [len(store.read(f"{name} {group} {number}".encode() for number in range(50))) for group in range(groups)]


def test_several_processes_write_and_one_is_killed(tmp_path):
    others = [writer(tmp_path, name, "20") for name in "ab"]
    killed = writer(tmp_path, "killed", "forever")
    for _ in range(5):
        last = int(killed.stdout.readline())
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert [other.wait() for other in others] == [0, 0]
    assert groups_of(tmp_path, "a", 20) == groups_of(tmp_path, "b", 20) == [50] * 20
    found = groups_of(tmp_path, "killed", last + 200)
    assert found[: last + 1] == [50] * (last + 1)
    assert set(found) <= {0, 50}
    for process in (*others, killed):
        process.stdout.close()


def test_a_full_disk_and_a_broken_file_are_one_sentence(tmp_path, monkeypatch):
    store = JudgementStore(tmp_path)
    store.write({b"kept": (1.0, 2.0)})
    connect = sqlite3.connect

    def small(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(module.sqlite3, "connect", small)
        with pytest.raises(
            UserError, match="disk is full; make room, and start again: what was judged is kept"
        ) as error:
            store.write({str(number).encode(): (0.5,) * 50 for number in range(100)})
    assert "\n" not in str(error.value)
    assert store.read([b"kept", b"1"]) == {b"kept": (1.0, 2.0)}
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="file is not a database; delete it"):
        JudgementStore(tmp_path)


def test_a_locked_file_is_waited_for(tmp_path, monkeypatch):
    store = JudgementStore(tmp_path)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    other = sqlite3.connect(store.path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match="database is locked; wait until the other run has ended"):
        store.write({b"a": (1.0,)})
    other.close()
    store.write({b"a": (1.0,)})
