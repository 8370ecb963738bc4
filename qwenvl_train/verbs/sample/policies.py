"""Which of several answers to a question are kept, and which make pairs. All functions are pure, and their results do
not depend on the order in which the answers are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

Keep = Literal["best", "right"]
PairUp = Literal["none", "closest", "hardest"]


@dataclass(frozen=True)
class Candidate:
    """One of the answers to a question."""

    number: int
    """Counted from 1, in the order in which the answers were drawn."""
    text: str
    """The text as a row would have it. Of answers with the same text, only the first one is used."""
    score: float
    """Higher is better."""
    right: bool
    faults: tuple[str, ...] = ()
    """Why the answer is not to be learned, in words."""
    complete: bool = True
    """Whether the model has ended the answer, and it is not empty."""
    length: int = 0
    """Number of tokens."""

    @property
    def solves(self) -> bool:
        return self.right and not self.faults

    @property
    def is_wrong(self) -> bool:
        """Whether it can be the rejected answer of a pair. Of one with the right result and a fault, a model would not
        learn what is wrong."""
        return self.complete and not self.right


class Pair(NamedTuple):
    chosen: Candidate
    rejected: Candidate


def pass_rate(tries: Sequence[Candidate]) -> float:
    """Return the share of answers that are right and without faults."""
    return sum(one.solves for one in tries) / len(tries)


def in_window(tries: Sequence[Candidate], window: tuple[float, float]) -> bool:
    low, high = window
    return low <= pass_rate(tries) <= high


def best_first(tries: Sequence[Candidate]) -> list[Candidate]:
    """Return the answers with the highest scores first, and of equal ones the one that was drawn first."""
    return sorted(tries, key=lambda one: (-one.score, one.number))


def best_try(tries: Sequence[Candidate]) -> Candidate:
    """Return the best answer to a question that no answer solves: one without faults, if there is one."""
    return min(tries, key=lambda one: (bool(one.faults), -one.score, one.number))


def kept(tries: Sequence[Candidate], keep: Keep, most: int | None, min_distance: float = 0.0) -> list[Candidate]:
    """Return the answers to learn, the best one first: one, or those that are right, at most `most`.

    Args:
        min_distance: Each answer differs from every better one by this share of the longer one's characters, as the
            edit distance counts it. Equal texts are kept once in any case.
    """
    found: list[Candidate] = []
    limit = 1 if keep == "best" else most
    for one in best_first([one for one in tries if one.solves]):
        if limit is not None and len(found) == limit:
            break
        if all(_differ(one.text, other.text, min_distance) for other in found):
            found.append(one)
    return found


def _differ(one: str, other: str, min_distance: float) -> bool:
    return one != other and (min_distance == 0 or distance(one, other) >= min_distance)


def distance(one: str, other: str) -> float:
    """Return the edit distance as a share of the longer text, between 0 and 1. It needs the extra `curate`."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_distance(one, other)


def paired(tries: Sequence[Candidate], pair_up: PairUp, most: int) -> list[Pair]:
    """Return at most `most` pairs of a right answer without faults and a wrong one. Each answer is in one pair.

    closest prefers pairs of similar length, from which a model does not learn that longer answers are better. hardest
    prefers wrong answers with a high score, and among them pairs of similar length.
    """
    if pair_up == "none":
        return []
    right = _distinct([one for one in tries if one.solves])
    wrong = _distinct([one for one in tries if one.is_wrong])
    found: list[Pair] = []
    used: set[int] = set()
    for pair in sorted((Pair(*both) for both in product(right, wrong)), key=_ORDERS[pair_up]):
        numbers = {pair.chosen.number, pair.rejected.number}
        if len(found) < most and not numbers & used:
            found.append(pair)
            used |= numbers
    return found


def _distinct(tries: Sequence[Candidate]) -> list[Candidate]:
    by_text: dict[str, Candidate] = {}
    for one in best_first(tries):
        by_text.setdefault(one.text, one)
    return list(by_text.values())


def _closest(pair: Pair) -> tuple[float, ...]:
    gap = abs(pair.chosen.length - pair.rejected.length)
    return gap, -pair.rejected.score, -pair.chosen.score, pair.chosen.number, pair.rejected.number


def _hardest(pair: Pair) -> tuple[float, ...]:
    return -pair.rejected.score, *_closest(pair)


_ORDERS: dict[PairUp, Callable[[Pair], tuple[float, ...]]] = {"closest": _closest, "hardest": _hardest}
