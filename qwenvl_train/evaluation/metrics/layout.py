"""Whether the elements of a page are where they should be."""

from functools import partial

from qwenvl_train.evaluation.metrics.matching import best_matches
from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.places import Place, box_iou, places_in
from qwenvl_train.evaluation.metrics.words import normalized

IOU = 0.5


def layout(answer: str, expected: str, question: Question) -> dict[str, float]:
    given, wanted = (
        [place for place in places_in(text, question) if not place.is_point] for text in (answer, expected)
    )
    if not given and not wanted:
        return {}
    return {"f1@0.5": _f1(wanted, given, labels=True), "boxes_f1@0.5": _f1(wanted, given, labels=False)}


def _f1(wanted: list[Place], given: list[Place], labels: bool) -> float:
    hits = sum(value >= IOU for value in best_matches(wanted, given, partial(_similarity, labels=labels)))
    return 2 * hits / (len(wanted) + len(given))


def _similarity(wanted: Place, given: Place, labels: bool) -> float:
    if labels and normalized(wanted.label) != normalized(given.label):
        return 0.0
    return box_iou(wanted.coordinates, given.coordinates)


LAYOUT = Metric(
    "layout",
    "F1 of the elements of a page, or of lines of text: an intersection over union of 0.5 or more and the same class "
    "or text, matched one to one; boxes_f1@0.5 is without class and text. Mean over pages with "
    "elements in either text (ours)",
    layout,
)
