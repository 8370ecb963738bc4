"""What the folder of an evaluation counts as answered."""

from qwenvl_train.verbs.eval.folder import EvalFolder


def row(index: int, turn: int, turns: int) -> dict:
    return {"index": index, "turn": turn, "turns": turns, "answer": f"{index}.{turn}"}


def test_a_sample_is_answered_when_all_of_its_turns_are(tmp_path):
    folder = EvalFolder(tmp_path)
    assert folder.answered() == {}
    folder.append([row(3, 2, 2), row(3, 1, 2), row(1, 1, 2)], process=0)
    folder.append([row(0, 1, 1)], process=1)
    assert folder.answered() == {0: [row(0, 1, 1)], 3: [row(3, 1, 2), row(3, 2, 2)]}
    folder.append([row(1, 2, 2)], process=1)
    assert list(folder.answered()) == [0, 1, 3]
    folder.finish([row(0, 1, 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert list(folder.answered()) == [0]
