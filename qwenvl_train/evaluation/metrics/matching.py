"""Matches what an answer lists to what was expected."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import networkx

Expected = TypeVar("Expected")
Given = TypeVar("Given")


def best_matches(
    expected: Sequence[Expected], given: Sequence[Given], similarity: Callable[[Expected, Given], float]
) -> list[float]:
    """Return the similarities of the pairs of a one-to-one matching whose sum is the largest. Pairs without any
    similarity are left out."""
    graph = networkx.Graph()
    for row, one in enumerate(expected):
        for column, other in enumerate(given):
            if (value := similarity(one, other)) > 0:
                graph.add_edge(("expected", row), ("given", column), weight=value)
    return [graph.edges[pair]["weight"] for pair in networkx.max_weight_matching(graph)]
