"""Converts boxes and points from pixels of the original picture to the text that published models write, and back."""

import json
from collections.abc import Iterator, Sequence

from qwenvl_train.data.sample import Coordinates, Listing, Reference, Region, Text
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family

Size = tuple[int, int]
"""Height and width in pixels."""


def to_convention(coordinates: Sequence[float], family: Family, original: Size, resized: Size) -> list[int]:
    """Return coordinates in the units of the family, rounded to whole numbers (each at most half a unit off)."""
    return [round(value * scale) for value, scale in _scaled(coordinates, family, original, resized)]


def to_pixels(numbers: Sequence[float], family: Family, original: Size, resized: Size) -> list[float]:
    """Return the model's coordinates as pixels of the original picture."""
    return [number / scale for number, scale in _scaled(numbers, family, original, resized)]


def _scaled(values: Sequence[float], family: Family, original: Size, resized: Size) -> Iterator[tuple[float, float]]:
    """Yield each value of x, y, x, y with the units of the family per pixel of the original picture on its axis."""
    full = (1000, 1000) if family.coordinates == "relative" else resized
    for index, value in enumerate(values):
        axis = 1 - index % 2
        yield value, full[axis] / original[axis]


def in_words(
    part: Text | Coordinates | Reference | Listing, family: Family, sizes: Sequence[tuple[Size, Size]], where: str
) -> str:
    """Return the text of a part in the notation of the family. `sizes` holds each picture's original and resized size.

    Raise UserError when a region lies in no picture of the sample or leaves its picture.
    """
    match part:
        case Text(text):
            return text
        case Reference(label):
            return _named(label) if family.regions == "tokens" else label
        case Coordinates(region):
            numbers = _numbers(region, family, sizes, where)
            return _boxed(numbers) if family.regions == "tokens" else str(numbers)
        case Listing(regions) if family.regions == "tokens":
            return "".join(_named(region.label) + _boxed(_numbers(region, family, sizes, where)) for region in regions)
        case Listing(regions):
            lines = (_json_line(region, _numbers(region, family, sizes, where)) for region in regions)
            return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


def _numbers(region: Region, family: Family, sizes: Sequence[tuple[Size, Size]], where: str) -> list[int]:
    if region.image >= len(sizes):
        raise UserError(
            f"{where}: the region {_told(region)} is in image {region.image}, counted from 0, but the row has "
            f"{len(sizes)} images."
        )
    original, resized = sizes[region.image]
    if any(not 0 <= value <= original[1 - index % 2] for index, value in enumerate(region.coordinates)):
        raise UserError(
            f"{where}: the region {_told(region)} is not inside its image of {original[1]}×{original[0]} pixels; "
            "give regions in pixels of the original image."
        )
    return to_convention(region.coordinates, family, original, resized)


def _told(region: Region) -> str:
    return f"{list(region.coordinates)} ({region.label})" if region.label else f"{list(region.coordinates)}"


def _named(label: str) -> str:
    return f"<|object_ref_start|>{label}<|object_ref_end|>"


def _boxed(numbers: list[int]) -> str:
    corners = ",".join(f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True))
    return f"<|box_start|>{corners}<|box_end|>"


def _json_line(region: Region, numbers: list[int]) -> str:
    key = "bbox_2d" if len(numbers) == 4 else "point_2d"
    return f'\t{{"{key}": {numbers}, "label": {json.dumps(region.label, ensure_ascii=False)}}}'
