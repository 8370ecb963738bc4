"""What a metric is: a pure function of two texts, whose scores add up over samples."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from qwenvl_train.errors import UserError
from qwenvl_train.families.thoughts import without_thoughts

if TYPE_CHECKING:
    from qwenvl_train.data.sample import Box
    from qwenvl_train.families.family import Family


class Picture(NamedTuple):
    """The sizes of a picture, as height and width."""

    original: tuple[int, int]
    resized: tuple[int, int]


@dataclass(frozen=True)
class Question:
    """What a metric may know of a sample beside the two texts."""

    accepted: tuple[str, ...] = ()
    """Accepted answers beside the expected one."""
    family: "Family | None" = None
    """The family whose notation boxes and points have. Without it, they are thousandths of the picture."""
    picture: Picture | None = None
    """The sizes of the picture, if the sample has a single one."""
    prompt: str = ""
    """The text of the question."""
    targets: tuple["Box", ...] = ()
    """The boxes of the element that the expected action is done to, in pixels of the original picture."""

    def answers(self, expected: str) -> tuple[str, ...]:
        """Return all right answers, the expected one first."""
        return (expected, *self.accepted)


class Part(NamedTuple):
    """What one sample adds to a figure, which is the sum of numerators over the sum of denominators. With denominators
    of 1, the figure is the mean over samples."""

    numerator: float
    denominator: float = 1.0

    @property
    def value(self) -> float:
        """The score of the sample alone."""
        return self.numerator / (self.denominator or 1)


_ROUNDING = 1e-6
"""By so much a score of a sample can differ from the best one."""

Scores = Mapping[str, Part]
"""The scores of one sample by the name of the sub-score. One that does not apply to the sample is absent. If the main
one is, all are, and the sample does not count."""


@dataclass(frozen=True)
class Metric:
    name: str
    convention: str
    """How it scores and whose convention this is, in one line that is shown beside the figures."""
    function: Callable[[str, str, Question], Mapping[str, Part | float] | float]
    """Takes the answer, the expected answer and the question. A float is a score with a denominator of 1; without a
    name, it is the only one. The first sub-score is the main one. A mapping without any is for a sample that has
    nothing to score."""
    higher_is_better: bool = True
    of_episodes: bool = False
    """Whether rows are steps of episodes, and an episode is right if the main score of each of its steps is 1."""

    def score(self, answer: str, expected: str, question: Question | None = None) -> dict[str, Part]:
        """Return the scores of one sample. Thoughts before either answer are left out."""
        found = self.function(without_thoughts(answer), without_thoughts(expected), question or Question())
        named = found if isinstance(found, Mapping) else {self.name: found}
        return {name: self._part(value) for name, value in named.items()}

    def is_best(self, value: float) -> bool:
        """Return whether a score of a sample is the best that there is, for metrics whose scores are shares."""
        return value >= 1 - _ROUNDING if self.higher_is_better else value <= _ROUNDING

    def _part(self, value: object) -> Part:
        match value:
            case Part():
                return value
            case int() | float():
                return Part(float(value))
        raise UserError(
            f"The metric {self.name} returned {type(value).__name__}; it must return a number, or a mapping from names "
            "to numbers."
        )


def figures(scores: Iterable[Scores]) -> dict[str, float]:
    """Return the figures of a source from the scores of its samples."""
    numerators: dict[str, float] = defaultdict(float)
    denominators: dict[str, float] = defaultdict(float)
    for sample in scores:
        for name, part in sample.items():
            numerators[name] += part.numerator
            denominators[name] += part.denominator
    return {name: Part(numerators[name], denominators[name]).value for name in numerators}
