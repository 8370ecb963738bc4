"""The boxes and points that a text has as numbers, in one of the notations of the published models."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from qwenvl_train.data.render.regions import Size, to_pixels
from qwenvl_train.data.sample import Region
from qwenvl_train.families.family import Family

# The two formats of the published models: JSON, with the label after the numbers, and control tokens, with the name
# before them. Without a label, a region is also written as plain numbers in brackets.
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_PAIR, _FOUR = rf"\[{_NUMBER},{_NUMBER}\]", rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
_IN_JSON = re.compile(rf'"(?:bbox_2d"\s*:\s*{_FOUR}|point_2d"\s*:\s*{_PAIR})(?:\s*,\s*"label"\s*:\s*"([^"]*)")?')
_IN_TOKENS = re.compile(
    r"(?:<\|object_ref_start\|>([^<]*)<\|object_ref_end\|>)?"
    rf"<\|box_start\|>\({_NUMBER},{_NUMBER}\)(?:,\({_NUMBER},{_NUMBER}\))?<\|box_end\|>"
)
_PLAIN = re.compile(rf"{_FOUR}|{_PAIR}")


@dataclass(frozen=True)
class Written:
    numbers: tuple[float, ...]
    """The numbers as they stand in the text."""
    label: str


class Sizes(Protocol):
    """The height and width of a picture, as `PictureSize` has them."""

    @property
    def original(self) -> Size: ...
    @property
    def resized(self) -> Size: ...


def written_regions(text: str, plain: bool = False) -> Iterator[Written]:
    """Yield the boxes and points in a text. With `plain`, numbers in brackets are regions, too, if the text has no
    others."""
    found = None
    for found in _IN_JSON.finditer(text):
        *numbers, label = found.groups()
        yield _written(numbers, label)
    for found in _IN_TOKENS.finditer(text):
        label, *numbers = found.groups()
        yield _written(numbers, label)
    if plain and found is None:
        for match in _PLAIN.finditer(text):
            yield _written(list(match.groups()), "")


def regions_in(text: str, size: Sizes, family: Family, plain: bool) -> list[Region]:
    """Return the boxes and points in a text about a single picture, in pixels of the original picture. With `plain`,
    numbers in brackets are regions, too, if the text has no others."""
    return [
        Region(tuple(to_pixels(one.numbers, family, size.original, size.resized)), one.label, image=0)
        for one in written_regions(text, plain)
    ]


def _written(numbers: list[str | None], label: str | None) -> Written:
    return Written(tuple(float(number) for number in numbers if number is not None), label or "")
