"""Pictures that are tiny, huge, or very long."""

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


class ImageSize(RuleSection):
    min_side: PositiveInt | None
    """The least length of the shorter side in pixels. With null, here as below, there is no limit."""
    max_side: PositiveInt | None
    """The largest length of the longer side in pixels."""
    max_ratio: PositiveFloat | None
    """The largest ratio of the longer side to the shorter one."""


def judge(row: RowView, settings: ImageSize) -> Verdict | None:
    pictures = [*row.pictures, *(clip[0] for clip in row.clips if clip)]
    sizes = [picture.size for picture in pictures if picture.size is not None]
    if not sizes:
        return None
    faults = [fault for size in sizes if (fault := _fault_of(size, settings))]
    return Verdict(bool(faults), float(min(map(min, sizes))), faults[0] if faults else "")


def _fault_of(size: tuple[int, int], settings: ImageSize) -> str:
    height, width = size
    short, long = min(size), max(size)
    shown = f"{width}×{height} pixels"
    if settings.min_side is not None and short < settings.min_side:
        return f"{shown}, with a side below {settings.min_side}"
    if settings.max_side is not None and long > settings.max_side:
        return f"{shown}, with a side above {settings.max_side}"
    if settings.max_ratio is not None and long > settings.max_ratio * short:
        return f"{shown}, with one side more than {settings.max_ratio:g} times the other"
    return ""


RULE = Rule(
    "image_size",
    "images that are tiny, huge or very long",
    False,
    judge,
    measure=Measure("shortest side of an image", "pixels"),
)
