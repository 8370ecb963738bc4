"""The choice of held-out samples with generated answers, and their rows."""

from collections import Counter

import numpy as np

from qwenvl_train.data.sample import Region, Sample, Text, Turn
from qwenvl_train.data.spread import spread
from qwenvl_train.evaluation.answering import row_of, samples_to_answer
from qwenvl_train.evaluation.generation import Answer, Request
from qwenvl_train.evaluation.predictions import place_of, prediction


class FewRows:
    """Two files of different size, with one row that cannot be used."""

    def __init__(self) -> None:
        self.samples, self.lengths = self, self
        self.usable = np.ones(1000, dtype=bool)
        self.usable[990] = False
        self.tokens = np.arange(1000)

    def files(self):
        yield "large.jsonl", range(990)
        yield "small.jsonl", range(990, 1000)

    def __getitem__(self, index: int) -> Sample:
        source = "large.jsonl" if index < 990 else "small.jsonl"
        return Sample(str(index), source, index, (Turn("user", (Text("What?"),), train=False),))


def chosen(seed: int) -> list[int]:
    return samples_to_answer(FewRows(), 8, seed)


def test_predictions_are_spread_over_the_sources_by_the_seed():
    assert chosen(1) == chosen(1) != chosen(2)
    assert chosen(1) == sorted(chosen(1)) != list(range(8))
    for seed in range(20):
        assert Counter(line < 990 for line in chosen(seed)) == {True: 4, False: 4}
        assert 990 not in chosen(seed)


def test_a_small_source_leaves_its_places_to_the_others():
    assert len(spread([range(2), range(2, 100)], 8, 0)) == 8
    assert spread([range(2), range(2, 5)], 99, 0) == [0, 1, 2, 3, 4]
    assert spread([range(2), range(2, 5)], 0, 0) == []


def test_with_more_sources_than_samples_the_seed_chooses_the_sources():
    sources = [[number] for number in range(50)]
    assert len({tuple(spread(sources, 3, seed)) for seed in range(10)}) > 5
    assert {found for seed in range(200) for found in spread(sources, 3, seed)} == set(range(50))


def answered(text: str, **more) -> dict:
    """An answer, as the row of it that is scored."""
    request = Request(FewRows()[3], 1, "What?", "Red.", None, None, False)
    box = Region((1.04, 2, 3, 4), "cat", image=0)
    return {"index": 3, "turns": 1, "entry": "a", **row_of(Answer(request, text, 1, True, (box,), ())), **more}


def test_an_answer_after_training_joins_the_one_before_it():
    before = prediction(answered("Blue.", scores={"anls": 0.0}, right=False), "before", None)
    after = prediction(answered("Red.", scores={"anls": 1.0}, right=True), "after", before)
    assert (before["before"], before["after"]) == ("Blue.", None)
    assert (after["before"], after["after"]) == ("Blue.", "Red.")
    box = {"label": "cat", "coordinates": [1.0, 2, 3, 4]}
    assert after["regions"] == {"expected": [box], "before": [], "after": []}
    assert before["scores"] == {"before": {"anls": 0.0}, "after": {}}
    assert after["scores"] == {"before": {"anls": 0.0}, "after": {"anls": 1.0}}
    assert (before["right"], after["right"]) == (
        {"before": False, "after": None},
        {"before": False, "after": True},
    )
    assert place_of(before) == place_of(after) == ("large.jsonl", 3, 1)


def test_a_row_of_an_older_run_gets_the_scores_of_its_new_answer():
    old = {key: value for key, value in prediction(answered("Blue."), "before", None).items() if key != "scores"}
    assert "scores" not in prediction(answered("Red."), "after", old)
    assert prediction(answered("Red.", scores={"anls": 1.0}), "after", old)["scores"] == {
        "before": {},
        "after": {"anls": 1.0},
    }
