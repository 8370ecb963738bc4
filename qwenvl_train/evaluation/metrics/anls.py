"""The similarity of short texts, with 0 for those that are too different."""

from rapidfuzz.distance import Levenshtein

from qwenvl_train.evaluation.metrics.metric import Metric, Question

THRESHOLD = 0.5


def anls(answer: str, expected: str, question: Question) -> float:
    return max(_similarity(answer, one) for one in question.answers(expected))


def _similarity(answer: str, expected: str) -> float:
    found = Levenshtein.normalized_similarity(*(" ".join(text.lower().split()) for text in (answer, expected)))
    return found if found >= THRESHOLD else 0.0


ANLS = Metric(
    "anls",
    "ANLS of DocVQA: 1 - edit distance / longer length, best over the accepted answers, 0 below 0.5, in lower case and "
    "with white space collapsed",
    anls,
)
