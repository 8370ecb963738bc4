"""Whether an answer points into the box of an element."""

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.places import Coordinates, box_in_fractions, is_inside, places_in
from qwenvl_train.evaluation.metrics.tool_calls import calls_in


def screenspot(answer: str, expected: str, question: Question) -> float:
    """The first point of the answer counts, or the middle of its first box. The element is one of the row's targets, or
    else the boxes of the expected answer."""
    boxes = [box_in_fractions(box, question) for box in question.targets]
    boxes = boxes or [place.coordinates for place in places_in(expected, question) if not place.is_point]
    point = _point(answer, question)
    return float(point is not None and any(is_inside(point, box) for box in boxes))


def _point(answer: str, question: Question) -> Coordinates | None:
    for call in calls_in(answer):
        if point := call.point("coordinate", question):
            return point
    for place in places_in(answer, question):
        x1, y1, *corner = place.coordinates
        return ((x1 + corner[0]) / 2, (y1 + corner[1]) / 2) if corner else (x1, y1)
    return None


SCREENSPOT = Metric(
    "screenspot",
    "share of answers whose point, that of a call or the middle of a box, is in the element's box (ScreenSpot)",
    screenspot,
)
