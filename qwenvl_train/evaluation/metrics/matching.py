"""Matches what an answer lists to what was expected."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Expected = TypeVar("Expected")
Given = TypeVar("Given")


def best_matches(
    expected: Sequence[Expected], given: Sequence[Given], similarity: Callable[[Expected, Given], float]
) -> list[float]:
    """Return the similarities of the pairs of a one-to-one matching whose sum is the largest. Pairs without any
    similarity are left out."""
    table = [[similarity(one, other) for other in given] for one in expected]
    if len(expected) > len(given):
        table = [list(column) for column in zip(*table, strict=True)]
    return [value for row, column in enumerate(_assignment(table)) if (value := table[row][column]) > 0]


def _assignment(table: list[list[float]]) -> list[int]:
    """Return a column for each row, no two the same, so that the sum of the values is the largest. There are at least
    as many columns as rows.

    This is the Hungarian algorithm, which adds the rows one by one along shortest augmenting paths. It is written here
    because scipy is no dependency, and networkx takes a second to import and 6 s for 100 rows, where this takes 0.03 s.
    """
    columns = len(table[0]) if table else 0
    row_of = [-1] * (columns + 1)  # the last column is where each path starts
    row_price, column_price = [0.0] * len(table), [0.0] * (columns + 1)
    for row in range(len(table)):
        row_of[columns] = row
        column, visited = columns, [False] * (columns + 1)
        distance, previous = [math.inf] * columns, [columns] * columns
        while row_of[column] >= 0:
            visited[column] = True
            here = row_of[column]
            for other in range(columns):
                cost = -table[here][other] - row_price[here] - column_price[other]
                if not visited[other] and cost < distance[other]:
                    distance[other], previous[other] = cost, column
            nearest = min((other for other in range(columns) if not visited[other]), key=distance.__getitem__)
            step = distance[nearest]
            for other in range(columns + 1):
                if visited[other]:
                    row_price[row_of[other]] += step
                    column_price[other] -= step
                elif other < columns:
                    distance[other] -= step
            column = nearest
        while column != columns:
            row_of[column] = row_of[previous[column]]
            column = previous[column]
    column_of = {row: column for column, row in enumerate(row_of[:columns])}
    return [column_of[row] for row in range(len(table))]
