"""What a judge is asked about a row, and what its answers mean.

Every answer is a few numbers, which are stored. Thresholds are applied to them later.
"""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qwenvl_train.curation.judging.settings import HIGHEST, LOWEST

LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
DIGITS = tuple(str(score) for score in range(LOWEST, HIGHEST + 1))
Figures = tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """A question after the conversation, to which the answer is one letter or digit. Its figures are the
    log-probabilities of the options, of which one is sure to be the answer."""

    text: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class PictureGain:
    """How likely the row's answers are with and without its pictures. The figures are both mean log-probabilities."""

    text: ClassVar[str] = "the answers with and without pictures"


@dataclass(frozen=True)
class Reward:
    """The score of a reward head, which is the only figure."""

    text: ClassVar[str] = "the reward"


Prompt = Choice | PictureGain | Reward


def score_choice(prompt: str) -> Choice:
    return Choice(prompt, DIGITS)


def class_choice(prompt: str, descriptions: Mapping[str, str]) -> Choice:
    """Return the question for one of some names, each of which has a letter."""
    lines = [f"{letter}. {name}: {words}" for letter, (name, words) in zip(LETTERS, descriptions.items(), strict=False)]
    return Choice(prompt.replace("{options}", "\n".join(lines)), tuple(LETTERS[: len(descriptions)]))


def normalized(log_probs: Sequence[float]) -> Figures:
    """Return log-probabilities whose probabilities add up to 1."""
    highest = max(log_probs)
    total = highest + math.log(sum(math.exp(value - highest) for value in log_probs))
    return tuple(value - total for value in log_probs)


def expected_score(figures: Figures) -> float:
    """Return the mean of the scores, weighted by their probabilities."""
    return sum(score * math.exp(value) for score, value in enumerate(figures, start=LOWEST))


def most_likely(figures: Figures) -> tuple[int, float]:
    """Return the number of the most likely option, and its probability."""
    best = max(range(len(figures)), key=figures.__getitem__)
    return best, math.exp(figures[best])
