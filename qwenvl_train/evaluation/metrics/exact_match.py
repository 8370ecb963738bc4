"""Whether the answer is an accepted one."""

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.words import normalized


def exact_match(answer: str, expected: str, question: Question) -> float:
    return float(normalized(answer) in {normalized(one) for one in question.answers(expected)})


EXACT_MATCH = Metric(
    "exact_match",
    "share of answers that equal an accepted one after NFKC, folding case, collapsing white space and dropping a final "
    "full stop",
    exact_match,
)
