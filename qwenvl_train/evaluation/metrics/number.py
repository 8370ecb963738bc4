"""Whether a number is near the expected one."""

import re

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.words import normalized

TOLERANCE = 0.05
_NUMBER = re.compile(r"([-+]?)[$€£¥]?((?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d+)?)(\s?%)?")


def number(answer: str, expected: str, question: Question) -> float:
    return float(any(_is_near(answer, one) for one in question.answers(expected)))


def number_of(text: str) -> float | None:
    """Return the number that a text is, and None if it is no number. 5 % is 0.05."""
    found = _NUMBER.fullmatch(normalized(text).replace("−", "-"))
    try:
        return float(f"{found[1]}{found[2].replace(',', '')}") / (100 if found[3] else 1) if found else None
    except ValueError:  # there is no digit
        return None


def _is_near(answer: str, expected: str) -> bool:
    given, right = number_of(answer), number_of(expected)
    if given is None or right is None:
        return normalized(answer) == normalized(expected)
    return given == right or abs(given - right) <= TOLERANCE * abs(right)


NUMBER = Metric(
    "number",
    "relaxed accuracy of ChartQA: a number within 5 % of the expected one (thousands separators are dropped, 5 % is "
    "0.05), and other text by exact_match",
    number,
)
