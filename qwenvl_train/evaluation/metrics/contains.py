"""Whether the answer contains an accepted one."""

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.words import normalized


def contains(answer: str, expected: str, question: Question) -> float:
    given = normalized(answer)
    accepted = [normalized(one) for one in question.answers(expected)]
    return float(any(one in given if one else not given for one in accepted))


CONTAINS = Metric(
    "contains",
    "share of answers that contain an accepted one, after folding case and collapsing white space (OCRBench); an empty "
    "one is contained in an empty answer only",
    contains,
)
