"""The boxes and points in an answer, as fractions of the picture."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwenvl_train.data.render.written import written_regions
from qwenvl_train.evaluation.metrics.metric import Question

Coordinates = tuple[float, ...]
"""`x1, y1, x2, y2` of a box, or `x, y` of a point."""


@dataclass(frozen=True)
class Place:
    coordinates: Coordinates
    """In fractions of the picture's width and height, so that the notations of all families are comparable. The
    intersection over union is the same as in pixels."""
    label: str = ""

    @property
    def is_point(self) -> bool:
        return len(self.coordinates) == 2


def places_in(text: str, question: Question) -> list[Place]:
    """Return the boxes and points in a text. If there are none in the notation of a family, they are the numbers in
    brackets."""
    return [Place(as_fractions(one.numbers, question), one.label) for one in written_regions(text, plain=True)]


def as_fractions(numbers: Sequence[float], question: Question) -> Coordinates:
    """Return the numbers that a model writes for a box or a point as fractions of the picture."""
    height, width = 1000, 1000
    if question.family and question.family.coordinates == "resized" and question.picture:
        height, width = question.picture.resized
    return tuple(_upright(number / side for number, side in zip(numbers, (width, height, width, height), strict=False)))


def box_in_fractions(box: Sequence[float], question: Question, factor: float = 1.0) -> Coordinates:
    """Return a box in pixels of the original picture as fractions, enlarged by a factor around its middle."""
    assert question.picture is not None, "boxes in pixels need the size of the picture"
    height, width = question.picture.original
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    wider, higher = (factor - 1) * (x2 - x1) / 2, (factor - 1) * (y2 - y1) / 2
    return x1 - wider, y1 - higher, x2 + wider, y2 + higher


def box_iou(one: Coordinates, other: Coordinates) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    union = _area(one) + _area(other) - both
    # Numbers that a model repeats to hundreds of digits have an infinite area.
    return both / union if 0 < union < math.inf else 0.0


def is_inside(point: Coordinates, box: Coordinates) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def distance(one: Coordinates, other: Coordinates) -> float:
    return math.dist(one, other)


def direction(start: Coordinates, end: Coordinates) -> str:
    """Return the direction from one point to another: that of the longer side."""
    across, down = end[0] - start[0], end[1] - start[1]
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


def _area(box: Coordinates) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _upright(numbers: Iterator[float]) -> list[float]:
    """Return coordinates with the smaller corner of a box first."""
    found = list(numbers)
    return [f(found[i], found[i + 2]) for f in (min, max) for i in (0, 1)] if len(found) == 4 else found
