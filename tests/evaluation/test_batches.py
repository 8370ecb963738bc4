"""The groups of samples that are answered together."""

import numpy as np

from qwenvl_train.evaluation.batches import batches_of


def test_groups_are_of_similar_length_and_within_both_limits():
    lengths = np.array([5, 90, 10, 80, 6, 7])
    assert batches_of([0, 1, 2, 3, 4, 5], lengths, size=3, max_tokens=100) == [[1], [3, 2, 5], [4, 0]]
    assert batches_of([5, 0, 1], lengths, size=2, max_tokens=1000) == [[1, 5], [0]]
    assert batches_of([1], lengths, size=2, max_tokens=8) == [[1]]
    assert batches_of([], lengths, size=2) == []
