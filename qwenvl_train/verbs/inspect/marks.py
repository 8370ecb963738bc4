"""The boxes and points of a sample. A row gives them in pixels, or has them as numbers in its text."""

from collections.abc import Iterator

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.render.regions import to_convention, to_pixels
from qwenvl_train.data.render.written import written_regions
from qwenvl_train.data.sample import Coordinates, Listing, Region, Sample, Text
from qwenvl_train.families.family import Family
from qwenvl_train.verbs.inspect.facts import Mark


def marks_of(sample: Sample, pictures: tuple[PictureSize, ...], family: Family) -> Iterator[Mark]:
    """Yield the boxes and points of a sample. Numbers in the text do not name their picture, so they are used only if
    the sample has a single picture."""
    for turn in sample.turns:
        for part in turn.parts:
            match part:
                case Coordinates(region):
                    yield _given(region, pictures, family)
                case Listing(regions):
                    yield from (_given(region, pictures, family) for region in regions)
                case Text(text) if len(pictures) == 1:
                    for found in written_regions(text):
                        yield _mark(0, found.label, None, found.numbers, pictures[0], family)
        for call in turn.calls:
            yield from (_given(region, pictures, family) for _, region in call.regions)


def _given(region: Region, pictures: tuple[PictureSize, ...], family: Family) -> Mark:
    size = pictures[region.image]
    written = to_convention(region.coordinates, family, size.original, size.resized)
    return _mark(region.image, region.label, region.coordinates, tuple(written), size, family)


def _mark(
    picture: int,
    label: str,
    given: tuple[float, ...] | None,
    written: tuple[float, ...],
    size: PictureSize,
    family: Family,
) -> Mark:
    pixels = to_pixels(written, family, size.original, size.resized)
    sides = [size.original[1 - place % 2] for place in range(len(pixels))]
    drawn = (
        value * size.resized[1 - place % 2] / side
        for place, (value, side) in enumerate(zip(pixels, sides, strict=True))
    )
    # A written number is rounded, so it may lie outside the picture by half a unit.
    inside = all(-0.5 <= value <= side + 0.5 for value, side in zip(pixels, sides, strict=True))
    return Mark(picture, label, given, written, tuple(drawn), inside)
