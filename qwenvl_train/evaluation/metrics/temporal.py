"""The overlap of spans of time."""

from qwenvl_train.evaluation.metrics.matching import best_matches
from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.spans import overlap, spans_in

THRESHOLDS = (0.3, 0.5, 0.7)


def temporal(answer: str, expected: str, question: Question) -> dict[str, float]:
    wanted = spans_in(expected)
    # As many as were expected: more guesses must not score better.
    given = spans_in(answer)[: len(wanted)]
    if not wanted:
        return {"iou": float(not spans_in(answer))}
    overlaps = best_matches(wanted, given, overlap)
    recalls = {f"r1@{least}": sum(value >= least for value in overlaps) / len(wanted) for least in THRESHOLDS}
    return {"iou": sum(overlaps) / len(wanted), **recalls}


TEMPORAL = Metric(
    "temporal",
    "Charades-STA: mean intersection over union of spans of time, and the share with at least 0.3, 0.5 and 0.7 (R@1); "
    "only the answer's first spans count, as many as were expected",
    temporal,
)
