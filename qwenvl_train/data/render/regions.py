"""Converts boxes and points from pixels of the original picture to the text that published models write, and back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwenvl_train.data.sample import (
    Coordinates,
    Listing,
    PublishedTool,
    Reference,
    Region,
    Sample,
    Text,
    ToolCall,
    Turn,
)
from qwenvl_train.errors import UserError
from qwenvl_train.families.agent_tools import schema_of, screen_of
from qwenvl_train.families.family import Family

Size = tuple[int, int]
"""Height and width in pixels."""


def to_convention(coordinates: Sequence[float], family: Family, original: Size, resized: Size) -> list[int]:
    """Return coordinates in the units of the family, rounded to whole numbers (each at most half a unit off)."""
    return to_units(coordinates, full_size(family, resized), original)


def to_pixels(numbers: Sequence[float], family: Family, original: Size, resized: Size) -> list[float]:
    """Return the model's coordinates as pixels of the original picture."""
    return from_units(numbers, full_size(family, resized), original)


def full_size(family: Family, resized: Size) -> Size:
    """Return the height and width of a picture in the units of the family."""
    return (1000, 1000) if family.coordinates == "relative" else resized


def to_units(coordinates: Sequence[float], full: Size, original: Size) -> list[int]:
    """Return coordinates in units in which the picture has the size `full`, rounded to whole numbers."""
    return [round(value * scale) for value, scale in _scaled(coordinates, full, original)]


def from_units(numbers: Sequence[float], full: Size, original: Size) -> list[float]:
    """Return such coordinates as pixels of the original picture."""
    return [number / scale for number, scale in _scaled(numbers, full, original)]


def _scaled(values: Sequence[float], full: Size, original: Size) -> Iterator[tuple[float, float]]:
    """Yield each value of x, y, x, y with the units per pixel of the original picture on its axis."""
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
        case Coordinates(region, separator):
            numbers = _numbers(region, family, sizes, where)
            if separator is not None:
                return separator.join(map(str, numbers))
            return _boxed(numbers) if family.regions == "tokens" else str(numbers)
        case Listing(regions) if family.regions == "tokens":
            return "".join(_named(region.label) + _boxed(_numbers(region, family, sizes, where)) for region in regions)
        case Listing(regions):
            lines = (_json_line(region, _numbers(region, family, sizes, where)) for region in regions)
            return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


def units_of_tools(sample: Sample, family: Family) -> dict[str, Size]:
    """Return the height and width of a screen in the units of each published tool, if they are not those of the
    family."""
    if family.coordinates != "relative":
        return {}
    screens = {
        tool.name: screen_of(tool.name, family, (0, 0)) for tool in sample.tools if isinstance(tool, PublishedTool)
    }
    return {name: (screen.height, screen.width) for name, screen in screens.items()}


def with_written_tools(sample: Sample, family: Family, sizes: Sequence[tuple[Size, Size]]) -> Sample:
    """Return the sample with its published tools as the schemas of the family, and with the boxes and points of its
    tool calls as numbers. `sizes` holds each picture's original and resized size.

    A published tool states the size of the screen. In relative coordinates, this is the unit of its calls. In pixels of
    resized pictures, it is the size of the last picture, and calls are in pixels of the picture that they are about.
    """
    published = [tool.name for tool in sample.tools if isinstance(tool, PublishedTool)]
    if not published and not any(call.regions for turn in sample.turns for call in turn.calls):
        return sample
    if published and not sizes:
        raise UserError(f"{sample.where}: the tool {published[0]} needs the size of a screenshot; add an image.")
    tools = tuple(
        schema_of(tool.name, family, screen_of(tool.name, family, sizes[-1][1]))
        if isinstance(tool, PublishedTool)
        else tool
        for tool in sample.tools
    )
    full = units_of_tools(sample, family)

    def written(turns: Sequence[Turn]) -> tuple[Turn, ...]:
        return tuple(
            replace(turn, calls=tuple(_written_call(call, family, sizes, full, sample.where) for call in turn.calls))
            for turn in turns
        )

    return replace(sample, tools=tools, turns=written(sample.turns), rejected=written(sample.rejected))


def _written_call(
    call: ToolCall, family: Family, sizes: Sequence[tuple[Size, Size]], screens: Mapping[str, Size], where: str
) -> ToolCall:
    if not call.regions:
        return call
    values: dict[str, Any] = json.loads(call.arguments)
    for key, region in call.regions:
        values[key] = _numbers(region, family, sizes, where, screens.get(call.name))
    return ToolCall(call.name, json.dumps(values, ensure_ascii=False))


def _numbers(
    region: Region, family: Family, sizes: Sequence[tuple[Size, Size]], where: str, full: Size | None = None
) -> list[int]:
    """Return the coordinates of a region in the units of the family, or in those in which the picture has the size
    `full`."""
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
    return to_units(region.coordinates, full or full_size(family, resized), original)


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
