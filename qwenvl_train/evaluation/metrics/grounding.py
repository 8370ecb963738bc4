"""Whether the boxes and points of an answer are where they should be."""

from functools import partial

from qwenvl_train.evaluation.metrics.json_text import json_in
from qwenvl_train.evaluation.metrics.matching import best_matches
from qwenvl_train.evaluation.metrics.metric import Metric, Part, Question
from qwenvl_train.evaluation.metrics.places import Place, box_iou, distance, is_inside, places_in
from qwenvl_train.evaluation.metrics.tool_calls import first_call
from qwenvl_train.evaluation.metrics.words import normalized

IOU = 0.5
DISTANCE = 0.04
"""The distance, as a fraction of the picture, within which two points are the same: Qwen's for AndroidControl."""


def grounding(answer: str, expected: str, question: Question) -> dict[str, Part | float]:
    given, wanted = _places(answer, question), _places(expected, question)
    hits = sum(value >= IOU for value in best_matches(wanted, given, partial(_similarity, labels=len(wanted) > 1)))
    counted = len(given) + len(wanted)
    scores: dict[str, Part | float] = {"f1@0.5": 2 * hits / counted if counted else 1.0}
    points = {place.is_point for place in given}, {place.is_point for place in wanted}
    if wanted and points in (({True}, {False}), ({False}, {True})):
        scores["point_in_box"] = hits / len(wanted)
    elif points[1] == {False}:
        overlaps = best_matches(wanted, given, partial(_overlap, labels=len(wanted) > 1))
        scores["iou"] = sum(overlaps) / max(len(given), len(wanted))
    if wanted:
        scores["count"] = float(len(given) == len(wanted))
    if json_in(expected) is not None:
        scores["valid_json"] = float(json_in(answer) is not None)
    return scores


def _places(text: str, question: Question) -> list[Place]:
    """Return the boxes and points in a text, or the point of its action."""
    call = first_call(text)
    point = call and call.point("coordinate", question)
    return [Place(point)] if point else places_in(text, question)


def _similarity(wanted: Place, given: Place, labels: bool) -> float:
    """Return the intersection over union of two boxes, and 1 or 0 if there is a point."""
    if labels and _differ(wanted.label, given.label):
        return 0.0
    match wanted.is_point, given.is_point:
        case True, True:
            return float(distance(wanted.coordinates, given.coordinates) <= DISTANCE)
        case True, False:
            return float(is_inside(wanted.coordinates, given.coordinates))
        case False, True:
            return float(is_inside(given.coordinates, wanted.coordinates))
    return box_iou(wanted.coordinates, given.coordinates)


def _overlap(wanted: Place, given: Place, labels: bool) -> float:
    return 0.0 if given.is_point else _similarity(wanted, given, labels)


def _differ(wanted: str, given: str) -> bool:
    return bool(wanted and given) and normalized(wanted) != normalized(given)


GROUNDING = Metric(
    "grounding",
    "f1@0.5 counts boxes with an intersection over union of 0.5 or more, points in boxes (ScreenSpot) and points "
    "within 0.04 of the picture; with one box on both sides it is RefCOCO's Acc@0.5. Several regions are matched one "
    "to one, never across different labels. count is the share of answers with the right number of regions, valid_json "
    "that of those whose JSON is not broken, where JSON is expected",
    grounding,
)
