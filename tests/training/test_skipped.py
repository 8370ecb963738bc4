"""The list of samples that are not trained on."""

import json
from dataclasses import replace

import pytest

from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.skipped import Skipped

ONE, TWO, THREE, FOUR = (Problem("a.jsonl", line, "broken", f"a.jsonl:{line} is broken") for line in (1, 2, 3, 4))
ALONE = CpuGroup(1)


class Elsewhere(CpuGroup):
    """Another process brings what it has met."""

    def __init__(self, *theirs: Problem):
        super().__init__(1)
        self._theirs = theirs

    def everything(self, mine):
        return [*mine, *self._theirs]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "skipped.jsonl"


def lines(file) -> list[int]:
    return [json.loads(line)["line"] for line in file.read_text().splitlines()]


def test_each_problem_is_listed_once_whoever_met_it(file):
    skipped = Skipped([TWO, ONE], most=4, fatal=False, file=file, resumed=False)
    skipped.write()
    assert lines(file) == [1, 2]
    skipped.record([THREE, ONE, THREE])
    assert skipped.unshared == 1
    skipped.share(Elsewhere(THREE, FOUR), writes=True)
    skipped.record([FOUR])
    assert skipped.unshared == 0
    skipped.share(Elsewhere(THREE), writes=True)
    assert lines(file) == [1, 2, 3, 4]
    assert json.loads(file.read_text().splitlines()[2]) == THREE.as_dict()
    assert len(skipped) == 4


def test_one_process_writes(file):
    skipped = Skipped([], most=4, fatal=False, file=file, resumed=False)
    skipped.record([ONE])
    skipped.share(ALONE, writes=False)
    assert len(skipped) == 1
    assert not file.exists()


def test_an_empty_list_is_written(file):
    Skipped([], most=0, fatal=True, file=file, resumed=False).write()
    assert file.read_text() == ""


def test_a_resumed_run_keeps_what_it_had_found(file):
    first = Skipped([ONE], most=3, fatal=False, file=file, resumed=False)
    first.write()
    first.record([THREE])
    first.share(ALONE, writes=True)
    Skipped([ONE], most=3, fatal=False, file=file, resumed=True).write()
    assert lines(file) == [1, 3]
    Skipped([ONE], most=3, fatal=False, file=file, resumed=False).write()
    assert lines(file) == [1]


def test_a_problem_that_another_version_words_differently_is_listed_once(file):
    first = Skipped([ONE], most=2, fatal=False, file=file, resumed=False)
    first.write()
    first.record([THREE])
    first.share(ALONE, writes=True)
    one, three = (replace(problem, reason="in other words") for problem in (ONE, THREE))
    resumed = Skipped([one], most=2, fatal=False, file=file, resumed=True)
    resumed.record([three])
    resumed.write()
    assert resumed.unshared == 0
    assert lines(file) == [1, 3]


def test_half_a_line_of_a_killed_run_is_met_again(file):
    whole = json.dumps(THREE.as_dict())
    file.write_text(f"{whole}\n{json.dumps(FOUR.as_dict())[:30]}")
    skipped = Skipped([ONE], most=3, fatal=False, file=file, resumed=True)
    skipped.write()
    assert lines(file) == [1, 3]
    skipped.record([FOUR])
    skipped.share(ALONE, writes=True)
    assert lines(file) == [1, 3, 4]


def test_too_many_end_the_run(file):
    with pytest.raises(UserError, match=r"2 rows cannot be used, but data\.max_skipped is 1; one of them: a\.jsonl:2"):
        Skipped([ONE, TWO], most=1, fatal=False, file=file, resumed=False)
    skipped = Skipped([ONE], most=1, fatal=False, file=file, resumed=False)
    skipped.write()
    with pytest.raises(UserError, match="2 rows cannot be used"):
        skipped.share(Elsewhere(THREE), writes=True)
    assert lines(file) == [1, 3]


def test_the_first_ends_a_run_that_leaves_nothing_out(file):
    skipped = Skipped([ONE], most=3, fatal=True, file=file, resumed=False)
    skipped.share(ALONE, writes=True)
    with pytest.raises(UserError, match=r"^a\.jsonl:3 is broken$"):
        skipped.share(Elsewhere(THREE), writes=True)
