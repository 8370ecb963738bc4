"""The choice of held-out samples with generated answers, and their rows."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from qwenvl_train.data.sample import Region, Sample, Text, Turn
from qwenvl_train.data.spread import spread
from qwenvl_train.evaluation.generation import Answer, Request
from qwenvl_train.evaluation.predictions import place_of, predictions


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


def answers(samples: Sequence[Sample]) -> list[Answer]:
    """Two answers to each sample. The last sample comes first, as the longest does."""
    box = Region((1.04, 2, 3, 4), "cat", image=0)
    return [
        Answer(Request(sample, turn, prompt, expected, None, None, False), text, 1, True, regions, ())
        for sample in reversed(samples)
        for turn, prompt, expected, text, regions in (
            (1, "What?", "Red.", "Blue.", (box,)),
            (2, "Sure?", "Yes.", "No.", ()),
        )
    ]


def chosen(seed: int) -> list[int]:
    return [one.answer.request.sample.line for one in predictions(FewRows(), 8, seed, answers)][::2]


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


def test_an_answer_after_training_joins_the_one_before_it():
    before = [one.row("before", None) for one in predictions(FewRows(), 1, 0, answers)]
    stored = {place_of(row): row for row in before}
    after = [one.row("after", stored.get(one.place)) for one in predictions(FewRows(), 1, 0, answers)]
    assert [(row["turn"], row["before"], row["after"]) for row in before] == [(1, "Blue.", None), (2, "No.", None)]
    assert [(row["turn"], row["before"], row["after"]) for row in after] == [(1, "Blue.", "Blue."), (2, "No.", "No.")]
    box = {"label": "cat", "coordinates": [1.0, 2, 3, 4]}
    assert after[0]["regions"] == {"expected": [box], "before": [], "after": []}
    assert "regions" not in after[1]
