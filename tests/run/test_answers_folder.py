"""What a folder of answers counts as answered."""

from qwenvl_train.run.answers_folder import AnswersFolder


def row(index: int, turn: int, turns: int) -> dict:
    return {"index": index, "turn": turn, "turns": turns, "answer": f"{index}.{turn}"}


def test_a_sample_is_answered_when_all_of_its_turns_are(tmp_path):
    folder = AnswersFolder(tmp_path, "eval.to", "predictions")
    assert folder.answered() == {}
    folder.append([row(3, 2, 2), row(3, 1, 2), row(1, 1, 2)], process=0)
    folder.append([row(0, 1, 1)], process=1)
    assert folder.answered() == {0: [row(0, 1, 1)], 3: [row(3, 1, 2), row(3, 2, 2)]}
    folder.append([row(1, 2, 2)], process=1)
    assert list(folder.answered()) == [0, 1, 3]
    folder.finish([row(0, 1, 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert list(folder.answered()) == [0]


def test_each_turn_has_as_many_answers_as_are_drawn(tmp_path):
    folder = AnswersFolder(tmp_path, "sample.to", "answers")
    tries = [row(0, turn, 2) | {"try": number} for turn in (1, 2) for number in (1, 2)]
    folder.append(tries[:3], process=0)
    assert folder.answered(2) == {}
    folder.append(tries[3:], process=1)
    assert folder.answered(2) == {0: tries}
