"""The similarity of long texts."""

from rapidfuzz.distance import Levenshtein

from qwenvl_train.evaluation.metrics.metric import Metric, Question


def edit_similarity(answer: str, expected: str, question: Question) -> float:
    given = answer.strip()
    return max(Levenshtein.normalized_similarity(given, one.strip()) for one in question.answers(expected))


EDIT_SIMILARITY = Metric(
    "edit_similarity",
    "1 - edit distance / longer length, the complement of OmniDocBench's normalized edit distance, of the texts as "
    "they stand; mean over samples",
    edit_similarity,
)
