"""The boxes and points of a sample. A row gives them in pixels, or has them as numbers in its text."""

import json
from collections.abc import Iterator
from dataclasses import replace

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.render.regions import Size, from_units, full_size, to_units, units_of_tools
from qwenvl_train.data.render.written import written_regions
from qwenvl_train.data.sample import Coordinates, Listing, Region, Sample, Text, ToolCall
from qwenvl_train.families.family import Family
from qwenvl_train.verbs.inspect.facts import Mark


def marks_of(sample: Sample, pictures: tuple[PictureSize, ...], family: Family) -> Iterator[Mark]:
    """Yield the boxes and points of a sample. Numbers in the text do not name their picture, so they are used only if
    the sample has a single picture."""
    units = units_of_tools(sample, family)
    for turn in sample.turns:
        for part in turn.parts:
            match part:
                case Coordinates(region):
                    yield _given(region, pictures, family)
                case Listing(regions):
                    yield from (_given(region, pictures, family) for region in regions)
                case Text(text) if len(pictures) == 1:
                    for found in written_regions(text):
                        full = full_size(family, pictures[0].resized)
                        yield _mark(0, found.label, None, found.numbers, pictures[0], full)
        for call in turn.calls:
            yield from _marks_of_call(call, pictures, family, units.get(call.name))


def _marks_of_call(
    call: ToolCall, pictures: tuple[PictureSize, ...], family: Family, full: Size | None
) -> Iterator[Mark]:
    """Yield the boxes and points of a call, with its action as their label. A start and an end are an arrow."""
    if not call.regions:
        return
    regions = dict(call.regions)
    label = str(json.loads(call.arguments).get("action", call.name))
    start, end = regions.get("coordinate"), regions.get("coordinate2")
    if start and end and start.image == end.image:
        both = Region((*start.coordinates, *end.coordinates), label, start.image)
        yield replace(_given(both, pictures, family, full), is_arrow=True)
        regions = {key: region for key, region in regions.items() if key not in ("coordinate", "coordinate2")}
    for region in regions.values():
        yield _given(replace(region, label=label), pictures, family, full)


def _given(region: Region, pictures: tuple[PictureSize, ...], family: Family, full: Size | None = None) -> Mark:
    size = pictures[region.image]
    full = full or full_size(family, size.resized)
    written = to_units(region.coordinates, full, size.original)
    return _mark(region.image, region.label, region.coordinates, tuple(written), size, full)


def _mark(
    picture: int,
    label: str,
    given: tuple[float, ...] | None,
    written: tuple[float, ...],
    size: PictureSize,
    full: Size,
) -> Mark:
    """Return the mark of numbers in units in which the picture has the size `full`."""
    pixels = from_units(written, full, size.original)
    sides = [size.original[1 - place % 2] for place in range(len(pixels))]
    drawn = (
        value * size.resized[1 - place % 2] / side
        for place, (value, side) in enumerate(zip(pixels, sides, strict=True))
    )
    # A written number is rounded, so it may lie outside the picture by half a unit.
    inside = all(-0.5 <= value <= side + 0.5 for value, side in zip(pixels, sides, strict=True))
    return Mark(picture, label, given, written, tuple(drawn), inside)
