"""What a folder of answers counts as answered."""

import tracemalloc

from qwenvl_train.run.answers_folder import AnswersFolder


def row(index: int, turn: int, turns: int) -> dict:
    return {"index": index, "turn": turn, "turns": turns, "answer": f"{index}.{turn}"}


def test_a_sample_is_answered_when_all_of_its_turns_are(tmp_path):
    folder = AnswersFolder(tmp_path, "eval.to", "predictions")
    assert list(folder.stored()) == []
    folder.append([row(3, 2, 2), row(3, 1, 2), row(1, 1, 2)], process=0)
    folder.append([row(0, 1, 1)], process=1)
    assert list(folder.stored()) == [[row(0, 1, 1)], [row(3, 1, 2), row(3, 2, 2)]]
    assert (len(folder.stored()), folder.stored().indices) == (3, {0, 3})
    folder.append([row(1, 2, 2)], process=1)
    assert folder.stored().indices == {0, 1, 3}
    with folder.finishing() as add:
        add([row(0, 1, 1)])
        assert folder.stored().indices == {0, 1, 3}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert folder.stored().indices == {0}


def test_each_turn_has_as_many_answers_as_are_drawn(tmp_path):
    folder = AnswersFolder(tmp_path, "sample.to", "answers")
    tries = [row(0, turn, 2) | {"try": number} for turn in (1, 2) for number in (1, 2)]
    folder.append(tries[:3], process=0)
    assert len(folder.stored(2)) == 0
    folder.append(tries[3:], process=1)
    assert list(folder.stored(2)) == [tries]


def test_of_two_answers_the_later_one_counts_and_half_a_line_none(tmp_path):
    folder = AnswersFolder(tmp_path, "sample.to", "answers")
    folder.append([row(0, 1, 1) | {"answer": "ä" * 70_000}, row(1, 1, 1)], process=0)
    folder.append([row(0, 1, 1)], process=1)
    with (tmp_path / "answers.0.jsonl").open("a") as file:
        file.write('{"index": 2, "answer": "' + "x" * 70_000)
    assert list(folder.stored()) == [[row(0, 1, 1)], [row(1, 1, 1)]]
    folder.append([row(2, 1, 1)], process=0)
    assert folder.stored().indices == {0, 1, 2}


def test_answers_are_not_held_in_memory(tmp_path):
    folder = AnswersFolder(tmp_path, "sample.to", "answers")
    for index in range(400):
        folder.append([row(index, 1, 1) | {"answer": "x" * 20_000}], process=0)
    tracemalloc.start()
    try:
        assert sum(len(rows) for rows in folder.stored()) == 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 < (tmp_path / "answers.0.jsonl").stat().st_size
