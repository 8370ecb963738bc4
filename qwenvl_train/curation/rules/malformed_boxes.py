"""Boxes and points that cannot be in their picture."""

import re
from collections.abc import Iterator, Sequence

from pydantic import NonNegativeFloat

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.render.written import written_regions
from qwenvl_train.data.sample import Region


class MalformedBoxes(RuleSection):
    tolerance: NonNegativeFloat
    """The number of pixels by which boxes and points that a row gives may leave their picture."""


_MILLE = 1000
_TOKEN = "<|box_start|>"
_MARKS = ('_2d"', _TOKEN, "data-bbox", "data-point")
_IN_JSON = re.compile(r'"(bbox_2d|point_2d)"\s*:\s*\[([^\[\]]*)(\]|\Z)')
_IN_HTML = re.compile(r'data-(bbox|point)="([^"]*)(")')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def judge(row: RowView, settings: MalformedBoxes) -> Verdict | None:
    texts = [answer.text for answer in row.answers if any(mark in answer.text for mark in _MARKS)]
    if not texts and not row.regions:
        return None
    faults = [_fault_of_region(region, row, settings.tolerance) for region in row.regions]
    faults += [fault for text in texts for fault in _faults_in(text, row)]
    return next((Verdict(True, evidence=fault) for fault in faults if fault), Verdict(False))


def _fault_of_region(region: Region, row: RowView, tolerance: float) -> str:
    """Return what is wrong with a box or a point in pixels of its picture. Empty if nothing is."""
    if fault := fault_of(region.coordinates, tolerance):
        return fault
    if region.image >= len(row.pictures):
        return f"it is in image {region.image + 1}, but the row has {len(row.pictures)}"
    size = row.pictures[region.image].size
    if size is None:
        return ""
    height, width = size
    inside = all(
        value <= (height if index % 2 else width) + tolerance for index, value in enumerate(region.coordinates)
    )
    return "" if inside else f"{_shown(region.coordinates)} leaves its image of {width}×{height} pixels"


def _faults_in(text: str, row: RowView) -> Iterator[str]:
    """Yield what is wrong with the boxes and points in a text. Their units depend on the model generation: they are
    pixels of the original or of the resized picture, or thousandths. Only what is wrong in all of them is a fault."""
    written = list(_written(text))
    for kind, numbers in written:
        if len(numbers) != (4 if kind.startswith("b") else 2):
            yield f"{len(numbers)} numbers in {quoted(f'{kind} {_shown(numbers)}')}"
        else:
            yield fault_of(numbers, 0)
    largest = max((value for _, numbers in written for value in numbers), default=0)
    # The header of a picture is read only for numbers that may leave it.
    if largest > _MILLE and row.pictures and all(picture.size for picture in row.pictures):
        side = max(max(picture.size or (0, 0)) for picture in row.pictures)
        if largest > max(_MILLE, side):
            yield f"{largest:g} is beyond the image, whose larger side has {side} pixels"


def _written(text: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield the boxes and points in a text, each with bbox or point and its numbers. Empty lists stand for nothing."""
    for pattern in (_IN_JSON, _IN_HTML):
        for kind, inside, end in pattern.findall(text):
            if inside.strip() and end:
                yield kind, tuple(map(float, _NUMBER.findall(inside)))
    if _TOKEN in text:
        for region in written_regions(text):
            yield ("box" if len(region.numbers) == 4 else "point"), region.numbers


def fault_of(numbers: Sequence[float], tolerance: float) -> str:
    """Return what is wrong with a box or a point in any units. Empty if nothing is."""
    if any(number < -tolerance for number in numbers):
        return f"{_shown(numbers)} has a negative number"
    if len(numbers) == 4 and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        return f"{_shown(numbers)} is inverted"
    if len(numbers) == 4 and (numbers[0] == numbers[2] or numbers[1] == numbers[3]):
        return f"{_shown(numbers)} is empty"
    return ""


def _shown(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{number:g}' for number in numbers)}]"


RULE = Rule("malformed_boxes", "boxes and points that are inverted, empty or out of the image", True, judge)
